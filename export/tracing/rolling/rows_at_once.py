"""Loops over the rows of a batch as what they compute: each operation of a turn once, for all rows.

The rows lie along an axis in front of those of a single one.  What was a loop over time inside of a turn is one over all rows,
as in a module that never took them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rnncore.export.tracing.rolling.evaluation import listed
from rnncore.export.tracing.rolling.log import Constant, LayerCall, Log, Op, Ref, leaves, mapped
from rnncore.export.tracing.rolling.log_writer import LogWriter
from rnncore.export.tracing.rolling.ragged_rows import over_ragged
from rnncore.export.tracing.rolling.relations import Carried, Fixed, Inside, ListItem, LoopItem, Outside, Same
from rnncore.export.tracing.rolling.row_loops import RowLoop, RowLoops, RowNumber, reads_row, writes_row
from rnncore.export.tracing.rolling.row_values import (
    Count,
    LeftAsItIs,
    Ragged,
    Rows,
    Written,
    affine,
    by_weight,
    no_row_by_row,
    side_by_side,
    spread,
    steps_of,
)
from rnncore.export.tracing.rolling.spread import over_all
from rnncore.export.tracing.rolling.unread import without_unread
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.format.axes import BATCH

aten = torch.ops.aten
_PRODUCTS = (aten.mm.default, aten.addmm.default)
_LISTS = (aten.stack.default, aten.cat.default)


def with_rows_at_once(logs: Sequence[Log]) -> Sequence[Log] | None:
    """``logs`` without loops over the rows of a batch; None if they have none, or one that stays."""
    found = [RowLoops(log, log.sizes[BATCH]) for log in logs]
    if not all(loops.any for loops in found):
        return None
    writers = [_AtOnce(log, loops) for log, loops in zip(logs, found, strict=True)]
    try:
        written = without_unread([writer.at_once() for writer in writers])
    except Exception as error:  # it stays as it is
        pass_on_interruption(error)
        return None
    return written if all(writer.changed for writer in writers) else None


class _AtOnce(LogWriter):
    """Writes one log anew."""

    def __init__(self, log: Log, loops: RowLoops) -> None:
        super().__init__(log)
        self._old, self._loops = log, loops
        self._values: dict[Ref, Any] = {}
        self._results: list[dict[tuple[int, int], Any]] = []
        self.changed = bool(loops.found)

    def at_once(self) -> Log:
        """The log."""
        starts = {loop.start: loop for loop in self._loops.found}
        i = 0
        while i < len(self._old.ops):
            if i in starts:
                self._results.append({})
                self._loop(starts[i], self._results[-1])
                i = starts[i].end
            else:
                with self.of(self._old.ops[i]):
                    self._outside(i)
                i += 1
        self.log.outputs = [(name, self._moved(value)) for name, value in self._old.outputs]
        return self.log

    # Values outside of row loops.

    def _outside(self, i: int) -> None:
        op = self._old.ops[i]
        if op.target in _LISTS and any(self._is_of_rows(value) for value in op.args[0]):
            self._values[Ref(i)] = self.logger.value(self._joined(op))
            return
        self._values.update(
            (Ref(i, part), value) for part, value in enumerate(self.copied(op, op.everything, self._moved))
        )

    def _is_of_rows(self, value: Any) -> bool:
        """Whether an entry of a list is what a turn gave, or one row of many."""
        if not isinstance(value, Ref):
            return False
        return isinstance(self._loops.address(value), Inside) or self._loops.is_row(value)

    def _moved(self, value: Any) -> Any:
        """A value of the old log in the new one."""
        if isinstance(value, Constant):
            return self._counted(value)
        if not isinstance(value, Ref):
            return value
        where = self._loops.address(value)
        return self._values[value] if isinstance(where, Outside) else self.logger.value(self._of_turn(where))

    def _counted(self, constant: Constant) -> Any:
        """A constant, or the numbers of the rows that code has made it of: these, or a mask of so many steps."""
        shape, mask = constant.shape, None
        if not self._old.reads or not shape or shape[0] != self._loops.rows or len(shape) > 2:
            return constant
        numbers: Sequence[int] = constant.numbers
        if len(shape) == 2:
            mask = steps_of(constant.tensor())
            numbers = mask.numbers if mask is not None else []
        found = self._loops.like(numbers) if numbers and not isinstance(numbers[0], bool | float) else []
        if not found:
            return constant
        which, sign, plus = found[0]
        columns = self._columns([self._loops.address(value) for value in self._loops.read_off(which)])
        if len(columns) != 1:
            raise LeftAsItIs
        self.changed = True
        dtype = constant.dtype if mask is None else torch.int64
        made = self.run(affine, columns[0], sign, plus, dtype)
        return self.logger.value(made if mask is None else self.run(mask.of, made, constant.dtype))

    def _of_turn(self, where: Inside) -> Tensor:
        """What one turn gave."""
        found, last = self._results[where.loop][where.place, where.part], self._loops.found[where.loop].rows - 1
        if isinstance(found, Written):
            if where.iteration != last:
                raise LeftAsItIs
            return self.run(lambda: found.rows.movedim(0, found.axis).to(found.dtype))
        if isinstance(found, Ragged):
            raise LeftAsItIs
        if isinstance(found, Rows):
            return self.run(lambda: aten.select.int(found.tensor, 0, where.iteration))
        return self.tensor(found)

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
                value = self.tensor(self._moved(entries[len(entries) - len(left)]))
                pieces.append(self.run(aten.unsqueeze.default, value, axis) if stacked else value)
                left = left[1:]
                continue
            left = left[len(columns) * columns[0].shape[0] :]
            pieces.append(self.run(partial(side_by_side, stacked=stacked), columns, axis))
        return pieces[0] if len(pieces) == 1 else self.run(lambda: torch.cat(pieces, axis))

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
        if list(entries[: rows * width]) != wanted or any(isinstance(value, Written) for value in found):
            raise LeftAsItIs
        return [self._rows(value, rows) for value in found]

    # Loops.

    def _loop(self, loop: RowLoop, results: dict[tuple[int, int], Any]) -> None:
        for place in range(loop.period):
            with self.of(self._old.ops[loop.start + place]):
                for part, value in enumerate(self._place(loop, place, results)):
                    results[place, part] = value

    def _place(self, loop: RowLoop, place: int, results: dict[tuple[int, int], Any]) -> list[Any]:
        op, relations = self._old.ops[loop.start + place], loop.relations[place]
        if reads_row(self._old, loop.start + place, relations, loop.rows):
            base, axis = self._relation(loop, relations[0], results), op.args[1] % len(self._old.shape(op.args[0]))
            found = self._entries(base, axis)
            return [Rows(self.run(lambda: found.unsqueeze(axis + 1)) if op.target is aten.slice.Tensor else found)]
        if writes_row(self._old, loop.start + place, relations, loop.rows):
            axis = op.args[2] % len(op.shapes[0])
            source = self._rows(self._relation(loop, relations[1], results), loop.rows)
            narrow = op.target is aten.slice_scatter.default
            return [Written(self.run(lambda: source.squeeze(axis + 1)) if narrow else source, axis, op.dtypes[0])]
        given = iter(relations)
        everything = mapped(op.everything, lambda _: self._relation(loop, next(given), results))
        values = list(leaves(everything))
        if any(isinstance(value, Written) for value in values):
            raise LeftAsItIs
        if isinstance(op.target, LayerCall):
            return self._layer(op, everything[0], loop.rows)
        if any(isinstance(value, Ragged | Count) for value in values):
            return list(self.run(over_ragged, op, mapped(everything, self.plain), loop.rows))
        if op.target in (aten.fill.Scalar, aten.fill.Tensor) and isinstance(values[0], Rows):
            return list(self.run(over_ragged, op, mapped(everything, self.plain), loop.rows))
        if op.target is aten.copy.default:
            copied = self._rows(everything[0][1], loop.rows)
            return [Rows(self.run(lambda: spread(copied, (loop.rows, *op.shapes[0])).to(op.dtypes[0])))]
        if any(isinstance(value, Rows) for value in values):
            return [Rows(value) for value in self._for_all(op, everything)]
        if op.target is aten.full.default:  # what a turn makes is its own, as if it were made of the row
            size, number = everything[0][:2]
            return [Rows(self.run(lambda: aten.full.default([loop.rows, *size], number, dtype=op.dtypes[0])))]
        return list(self.copied(op, everything, lambda value: value))

    def _relation(self, loop: RowLoop, relation: Any, results: dict[tuple[int, int], Any]) -> Any:
        match relation:
            case Same():
                return results[relation.place, relation.part]
            case Fixed():
                value = relation.value
                if isinstance(value, Outside):
                    return self._values[Ref(value.op, value.part)]
                if isinstance(value, Inside):
                    return self.logger.value(self._of_turn(value))
                return self._counted(value) if isinstance(value, Constant) else value
            case RowNumber():
                numbers = self._rows(self._relation(loop, relation.source, results), loop.rows)
                own = self.run(affine, numbers, relation.sign, relation.plus, torch.int64)
                return Count(own, relation.most, (relation.which, relation.sign, relation.plus))
            case ListItem():
                return Rows(self._list_item(self._old.ops[relation.op]))
            case LoopItem():
                made = self._results[relation.loop][relation.place, relation.part]
                return made if isinstance(made, Ragged) else Rows(self._rows(made, loop.rows))
            case Carried():
                op = self._old.ops[loop.start + relation.place]
                axis = op.args[2] % len(op.shapes[0])
                start = self._relation(loop, Fixed(relation.starts[0]), results)
                return Written(self._entries(start, axis), axis, op.dtypes[0])
        raise LeftAsItIs

    def _list_item(self, op: Op) -> Tensor:
        value = self.tensor(self._moved(op.args[0]))
        dim = op.args[1 if op.target is aten.unbind.int else 2 :]
        axis = (dim[0] if dim else 0) % value.dim()
        return self.run(
            lambda: (
                value.movedim(axis, 0) if op.target is aten.unbind.int else value.movedim(axis, 0).unsqueeze(axis + 1)
            )
        )

    def _layer(self, op: Op, tensors: Sequence[Any], rows: int) -> list[Any]:
        """A layer on the rows of all turns together: its own batch, of one mostly, lies behind theirs."""
        x, *states = tensors
        given = [x.tensor if isinstance(x, Ragged) else self._rows(x, rows), *(self._rows(v, rows) for v in states)]
        own, target = given[0].shape[1], op.target
        merged = [self.logger.value(self.run(torch.flatten, t, 0, 1)) for t in given]
        shapes = [(rows * own, *shape[1:]) for shape in op.shapes]
        if isinstance(x, Ragged):
            if x.axis != 1 or own != 1 or target.has_lengths or not x.head:
                raise LeftAsItIs
            merged.append(self.logger.value(x.count.numbers))
            target, shapes[0] = replace(target, has_lengths=True), (rows, given[0].shape[2], *shapes[0][2:])
        self.log.ops.append(replace(op, target=target, args=tuple(merged), kwargs={}, shapes=shapes))
        found = [self.tensor(Ref(len(self.log.ops) - 1, part)) for part in range(len(shapes))]
        apart = [self.run(torch.unflatten, t, 0, (rows, own)) for t in found]
        y: Any = Ragged(apart[0], 1, x.count) if isinstance(x, Ragged) else Rows(apart[0])
        return [y, *(Rows(state) for state in apart[1:])]

    def _for_all(self, op: Op, everything: Any) -> list[Tensor]:
        values = list(leaves(everything))
        moving = [value.tensor for value in values if isinstance(value, Rows)]

        def filled(source: Iterator[Tensor]) -> tuple[Any, dict[str, Any]]:
            args, named = listed(mapped(everything, lambda v: next(source) if isinstance(v, Rows) else self.plain(v)))
            return op.with_arguments((args, named))

        args, named = filled(iter(moving))
        flags = [any(isinstance(v, Rows) for v in leaves(argument)) for argument in everything[0]]
        lists = any(isinstance(argument, tuple) and own for argument, own in zip(everything[0], flags, strict=True))
        simple = not lists and not any(isinstance(v, Rows) for v in leaves(everything[1]))
        if op.target in _PRODUCTS and flags == [*[False] * (len(flags) - 2), True, False]:
            return [self.run(by_weight, op.target, args)]
        found = self.run(lambda: over_all(op.target, args, named, flags)) if simple else None
        if not isinstance(found, Tensor) or found.dtype != op.dtypes[0] or op.several:

            def one(*tensors: Tensor) -> Any:
                args, named = filled(iter(tensors))
                return op.target(*args, **named)

            with no_row_by_row():
                found = self.run(lambda: torch.vmap(one)(*moving))
        return [found] if isinstance(found, Tensor) else list(found)

    def _rows(self, value: Any, rows: int) -> Tensor:
        """A value for all turns."""
        if isinstance(value, Rows):
            return value.tensor
        if isinstance(value, Written | Ragged | Count):
            raise LeftAsItIs
        tensor = self.plain(value)
        return self.run(lambda: tensor.unsqueeze(0).expand(rows, *tensor.shape))

    def _entries(self, base: Any, axis: int) -> Tensor:
        if isinstance(base, Written):
            if base.axis != axis:
                raise LeftAsItIs
            return base.rows
        if isinstance(base, Rows | Ragged):
            raise LeftAsItIs
        tensor = self.plain(base)
        return tensor if axis == 0 else self.run(lambda: tensor.movedim(axis, 0))
