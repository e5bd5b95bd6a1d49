"""Loops over the rows of a batch as what they compute: each operation of a turn once, for all rows.

The rows lie along an axis in front of those of a single one.  What was a loop over time inside of a turn is one over all rows,
as in a module that never took them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.callers import Callers
from rnncore.export.tracing.rolling.evaluation import listed
from rnncore.export.tracing.rolling.log import SOURCES, LayerCall, Log, Op, Ref, leaves, mapped
from rnncore.export.tracing.rolling.recording import Logger
from rnncore.export.tracing.rolling.relations import Carried, Fixed, Inside, ListItem, LoopItem, Outside, Same
from rnncore.export.tracing.rolling.row_loops import RowLoop, RowLoops, reads_row, writes_row
from rnncore.export.tracing.rolling.spread import over_all
from rnncore.runtime.format.axes import BATCH

aten = torch.ops.aten
_PRODUCTS = (aten.mm.default, aten.addmm.default)
_LISTS = (aten.stack.default, aten.cat.default)


class _Left(Exception):
    """The loop stays as it is."""


@dataclass(frozen=True)
class _Rows:
    """A value of one turn for all of them: [rows, ...]."""

    tensor: Tensor


@dataclass(frozen=True)
class _Written:
    """A tensor whose entries along ``axis`` every turn writes its own of; ``rows`` are those entries, [rows, ...]."""

    rows: Tensor
    axis: int
    dtype: torch.dtype


def with_rows_at_once(logs: Sequence[Log]) -> Sequence[Log] | None:
    """``logs`` without loops over the rows of a batch; None if they have none, or one that stays."""
    found = [RowLoops(log, log.sizes[BATCH]) for log in logs]
    if not all(loops.any for loops in found):
        return None
    writers = [_AtOnce(log, loops) for log, loops in zip(logs, found, strict=True)]
    try:
        written = [writer.run() for writer in writers]
    except _Left:
        return None
    return written if all(writer.changed for writer in writers) else None


class _AtOnce:
    """Writes one log anew."""

    def __init__(self, log: Log, loops: RowLoops) -> None:
        self._old, self._loops = log, loops
        self._log = Log(log.sizes, [], [], dict(log.shapes), dict(log.dtypes))
        self._logger = Logger(self._log, Callers(nn.Identity()), {}, (), None, full=False)
        self._values: dict[Ref, Any] = {}
        self._tensors: dict[Any, Tensor] = {}
        self._results: list[dict[tuple[int, int], Any]] = []
        self.changed = bool(loops.found)

    def run(self) -> Log:
        """The log."""
        starts = {loop.start: loop for loop in self._loops.found}
        i = 0
        while i < len(self._old.ops):
            if i in starts:
                self._results.append({})
                self._loop(starts[i], self._results[-1])
                i = starts[i].end
            else:
                with self._of(self._old.ops[i]):
                    self._outside(i)
                i += 1
        self._log.outputs = [(name, self._moved(value)) for name, value in self._old.outputs]
        return self._log.used()

    # Values outside of row loops.

    def _outside(self, i: int) -> None:
        op = self._old.ops[i]
        if op.target in _LISTS and any(self._is_of_rows(value) for value in op.args[0]):
            self._values[Ref(i)] = self._logger.value(self._joined(op))
            return
        self._values.update(
            (Ref(i, part), value) for part, value in enumerate(self._copied(op, op.everything, self._moved))
        )

    def _is_of_rows(self, value: Any) -> bool:
        """Whether an entry of a list is what a turn gave, or one row of many."""
        if not isinstance(value, Ref):
            return False
        return isinstance(self._loops.address(value), Inside) or self._loops.is_row(value)

    def _copied(self, op: Op, everything: Any, change: Callable[[Any], Any]) -> list[Ref]:
        args, named = op.with_arguments(mapped(everything, change))
        self._log.ops.append(replace(op, args=args, kwargs=named))
        return [Ref(len(self._log.ops) - 1, part) for part in range(len(op.shapes))]

    def _moved(self, value: Any) -> Any:
        """A value of the old log in the new one."""
        if not isinstance(value, Ref):
            return value
        where = self._loops.address(value)
        return self._values[value] if isinstance(where, Outside) else self._logger.value(self._of_turn(where))

    def _of_turn(self, where: Inside) -> Tensor:
        """What one turn gave."""
        found, last = self._results[where.loop][where.place, where.part], self._loops.found[where.loop].rows - 1
        if isinstance(found, _Written):
            if where.iteration != last:
                raise _Left
            return self._run(lambda: found.rows.movedim(0, found.axis).to(found.dtype))
        if isinstance(found, _Rows):
            return self._run(lambda: aten.select.int(found.tensor, 0, where.iteration))
        return self._tensor(found)

    def _joined(self, op: Op) -> Tensor:
        """``stack`` or ``cat`` of a list with the results of all turns in it."""
        stacked = op.target is aten.stack.default
        entries, *rest = op.args
        axis = (rest[0] if rest else op.kwargs.get("dim", 0)) % len(op.shapes[0])
        pieces: list[Tensor] = []
        left = [self._loops.address(v) if isinstance(v, Ref) else v for v in entries]
        while left:
            columns = self._columns(left)
            if not columns:
                value = self._tensor(self._moved(entries[len(entries) - len(left)]))
                pieces.append(self._run(aten.unsqueeze.default, value, axis) if stacked else value)
                left = left[1:]
                continue
            left = left[len(columns) * columns[0].shape[0] :]
            pieces.append(self._run(partial(_side_by_side, stacked=stacked), columns, axis))
        return pieces[0] if len(pieces) == 1 else self._run(lambda: torch.cat(pieces, axis))

    def _columns(self, entries: Sequence[Any]) -> list[Tensor]:
        """What all turns gave, where the next entries of a list are these; empty if they are not."""
        first = entries[0]
        if isinstance(first, Outside) and self._loops.is_row(Ref(first.op, first.part)):
            rows = len(self._old.ops[first.op].shapes)
            if list(entries[:rows]) != [Outside(first.op, part) for part in range(rows)]:
                return []
            self.changed = True
            return [self._list_item(self._old.ops[first.op])]
        if not isinstance(first, Inside) or first.iteration != 0:
            return []
        width = next((k for k, e in enumerate(entries) if not isinstance(e, Inside) or e.iteration), len(entries))
        rows = self._loops.found[first.loop].rows
        wanted = [replace(e, iteration=k) for k in range(rows) for e in entries[:width]]
        found = [self._results[e.loop][e.place, e.part] for e in entries[:width]]
        if list(entries[: rows * width]) != wanted or any(isinstance(value, _Written) for value in found):
            raise _Left
        return [self._rows(value, rows) for value in found]

    # Loops.

    def _loop(self, loop: RowLoop, results: dict[tuple[int, int], Any]) -> None:
        for place in range(loop.period):
            with self._of(self._old.ops[loop.start + place]):
                for part, value in enumerate(self._place(loop, place, results)):
                    results[place, part] = value

    def _place(self, loop: RowLoop, place: int, results: dict[tuple[int, int], Any]) -> list[Any]:
        op, relations = self._old.ops[loop.start + place], loop.relations[place]
        if reads_row(self._old, loop.start + place, relations, loop.rows):
            base, axis = self._relation(loop, relations[0], results), op.args[1] % len(self._old.shape(op.args[0]))
            found = self._entries(base, axis)
            return [_Rows(self._run(lambda: found.unsqueeze(axis + 1)) if op.target is aten.slice.Tensor else found)]
        if writes_row(self._old, loop.start + place, relations, loop.rows):
            axis = op.args[2] % len(op.shapes[0])
            source = self._rows(self._relation(loop, relations[1], results), loop.rows)
            narrow = op.target is aten.slice_scatter.default
            return [_Written(self._run(lambda: source.squeeze(axis + 1)) if narrow else source, axis, op.dtypes[0])]
        given = iter(relations)
        everything = mapped(op.everything, lambda _: self._relation(loop, next(given), results))
        values = list(leaves(everything))
        if any(isinstance(value, _Written) for value in values):
            raise _Left
        if isinstance(op.target, LayerCall):
            return self._layer(op, everything[0], loop.rows)
        if op.target is aten.copy.default:
            copied = self._rows(everything[0][1], loop.rows)
            return [_Rows(self._run(lambda: _spread(copied, (loop.rows, *op.shapes[0])).to(op.dtypes[0])))]
        if any(isinstance(value, _Rows) for value in values):
            return [_Rows(value) for value in self._for_all(op, everything)]
        if op.target is aten.full.default:  # what a turn makes is its own, as if it were made of the row
            size, number = everything[0][:2]
            return [_Rows(self._run(lambda: aten.full.default([loop.rows, *size], number, dtype=op.dtypes[0])))]
        return list(self._copied(op, everything, lambda value: value))

    def _relation(self, loop: RowLoop, relation: Any, results: dict[tuple[int, int], Any]) -> Any:
        match relation:
            case Same():
                return results[relation.place, relation.part]
            case Fixed():
                value = relation.value
                if isinstance(value, Outside):
                    return self._values[Ref(value.op, value.part)]
                return self._logger.value(self._of_turn(value)) if isinstance(value, Inside) else value
            case ListItem():
                return _Rows(self._list_item(self._old.ops[relation.op]))
            case LoopItem():
                return _Rows(self._rows(self._results[relation.loop][relation.place, relation.part], loop.rows))
            case Carried():
                op = self._old.ops[loop.start + relation.place]
                axis = op.args[2] % len(op.shapes[0])
                start = self._relation(loop, Fixed(relation.starts[0]), results)
                return _Written(self._entries(start, axis), axis, op.dtypes[0])
        raise _Left

    def _list_item(self, op: Op) -> Tensor:
        value = self._tensor(self._moved(op.args[0]))
        dim = op.args[1 if op.target is aten.unbind.int else 2 :]
        axis = (dim[0] if dim else 0) % value.dim()
        return self._run(
            lambda: (
                value.movedim(axis, 0) if op.target is aten.unbind.int else value.movedim(axis, 0).unsqueeze(axis + 1)
            )
        )

    def _layer(self, op: Op, tensors: Sequence[Any], rows: int) -> list[Any]:
        """A layer on the rows of all turns together: its own batch, of one mostly, lies behind theirs."""
        given = [self._rows(value, rows) for value in tensors]
        own = given[0].shape[1]
        merged = [self._logger.value(self._run(torch.flatten, t, 0, 1)) for t in given]
        shapes = [(rows * own, *shape[1:]) for shape in op.shapes]
        self._log.ops.append(replace(op, args=tuple(merged), kwargs={}, shapes=shapes))
        found = [self._tensor(Ref(len(self._log.ops) - 1, part)) for part in range(len(shapes))]
        return [_Rows(self._run(torch.unflatten, t, 0, (rows, own))) for t in found]

    def _for_all(self, op: Op, everything: Any) -> list[Tensor]:
        values = list(leaves(everything))
        moving = [value.tensor for value in values if isinstance(value, _Rows)]

        def filled(source: Iterator[Tensor]) -> tuple[Any, dict[str, Any]]:
            args, named = listed(mapped(everything, lambda v: next(source) if isinstance(v, _Rows) else self._plain(v)))
            return op.with_arguments((args, named))

        args, named = filled(iter(moving))
        flags = [any(isinstance(v, _Rows) for v in leaves(argument)) for argument in everything[0]]
        lists = any(isinstance(argument, tuple) and own for argument, own in zip(everything[0], flags, strict=True))
        simple = not lists and not any(isinstance(v, _Rows) for v in leaves(everything[1]))
        if op.target in _PRODUCTS and flags == [*[False] * (len(flags) - 2), True, False]:
            return [self._run(_by_weight, op.target, args)]
        found = self._run(lambda: over_all(op.target, args, named, flags)) if simple else None
        if not isinstance(found, Tensor) or found.dtype != op.dtypes[0] or op.several:

            def one(*tensors: Tensor) -> Any:
                args, named = filled(iter(tensors))
                return op.target(*args, **named)

            found = self._run(lambda: torch.vmap(one)(*moving))
        return [found] if isinstance(found, Tensor) else list(found)

    # Tensors of the right shape stand for the values of the new log while operations are found.

    @contextmanager
    def _of(self, op: Op) -> Iterator[None]:
        """Operations that are written inside belong to the line of ``op``."""
        before = len(self._log.ops)
        yield
        for i in range(before, len(self._log.ops)):
            self._log.ops[i] = replace(self._log.ops[i], lines=op.lines, path=op.path)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        with torch.no_grad(), self._logger:
            return function(*args)

    def _plain(self, value: Any) -> Any:
        return self._tensor(value) if isinstance(value, (Ref, *SOURCES)) else value

    def _tensor(self, value: Any) -> Tensor:
        """A tensor that stands for a value of the new log."""
        if value not in self._tensors:
            tensor = torch.zeros(self._log.shape(value), dtype=self._log.dtype(value))
            self._logger.name(tensor, value)
            self._tensors[value] = tensor
        return self._tensors[value]

    def _rows(self, value: Any, rows: int) -> Tensor:
        """A value for all turns."""
        if isinstance(value, _Rows):
            return value.tensor
        if isinstance(value, _Written):
            raise _Left
        tensor = self._plain(value)
        return self._run(lambda: tensor.unsqueeze(0).expand(rows, *tensor.shape))

    def _entries(self, base: Any, axis: int) -> Tensor:
        if isinstance(base, _Written):
            if base.axis != axis:
                raise _Left
            return base.rows
        if isinstance(base, _Rows):
            raise _Left
        tensor = self._plain(base)
        return tensor if axis == 0 else self._run(lambda: tensor.movedim(axis, 0))


def _spread(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``value`` as large as ``shape``, whose first axis it has."""
    for _ in range(len(shape) - value.dim()):
        value = value.unsqueeze(1)
    return value.expand(shape)


def _by_weight(product: Any, args: Sequence[Tensor]) -> Tensor:
    """A product of all rows [rows, n, size] with a weight."""
    *bias, rows, weight = args
    result: Tensor = product(*bias, rows.flatten(0, 1), weight)
    return result.unflatten(0, rows.shape[:2])


def _side_by_side(columns: Sequence[Tensor], axis: int, *, stacked: bool) -> Tensor:
    """Rows [rows, ...] of one list or several in turn as entries along ``axis``."""
    rows = columns[0] if len(columns) == 1 else torch.stack(list(columns), 1).flatten(0, 1)
    rows = rows.movedim(0, axis) if axis else rows
    return rows if stacked else rows.flatten(axis, axis + 1)
