"""Loops over the rows of a batch, ``for row in x``, in what one call ran: where they are, and what each turn reads.

They are looked for in every log by itself: a loop over time inside of one makes its turns longer where there are more steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from rnncore.export.tracing.rolling.log import LayerCall, Log, Op, Ref, leaves
from rnncore.export.tracing.rolling.relations import Carried, Fixed, Inside, ListItem, LoopItem, Number, Outside, relate

aten = torch.ops.aten
READS = (aten.select.int, aten.slice.Tensor)
WRITES = (aten.select_scatter.default, aten.slice_scatter.default)
LISTS = (aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default)
_FEWEST = 3
_MOST_READS = 60


@dataclass(frozen=True)
class RowLoop:
    """A loop that turns once for each of ``rows`` rows.

    start: its first operation.  period: operations of a turn.  relations: of the arguments of each place, in the order of
    ``leaves``; :class:`Inside` and :class:`LoopItem` name other row loops by their place in the list of those of the log.
    """

    start: int
    period: int
    rows: int
    relations: list[list[Any]]

    @property
    def end(self) -> int:
        """The first operation behind it."""
        return self.start + self.period * self.rows

    @property
    def places(self) -> range:
        """The operations of its first turn."""
        return range(self.start, self.start + self.period)

    def turn(self, op: int) -> tuple[int, int]:
        """Which turn an operation is of, and at which place of it."""
        return divmod(op - self.start, self.period)

    def calls_layers(self, log: Log) -> bool:
        """Whether it calls whole layers, row by row."""
        return any(isinstance(log.ops[i].target, LayerCall) for i in self.places)


@dataclass(frozen=True)
class RowNumber:
    """``sign`` times what each turn reads off a tensor, and ``plus``.

    source: the relation of what it is read off.  which: of the numbers of the rows that code reads.  most: the largest.
    """

    source: Any
    which: int
    sign: int
    plus: int
    most: int


def reads_row(log: Log, i: int, relations: Sequence[Any], rows: int) -> bool:
    """Whether operation ``i`` picks the entry of its turn along an axis of ``rows``: ``x[b]``, ``x[b : b + 1]``."""
    return log.ops[i].target in READS and _at_row(relations[1:]) and _along(log, i, relations[1]) == rows


def writes_row(log: Log, i: int, relations: Sequence[Any], rows: int) -> bool:
    """The same of ``out[b] = y``."""
    return log.ops[i].target in WRITES and _at_row(relations[2:]) and _along(log, i, relations[2]) == rows


def _at_row(relations: Sequence[Any]) -> bool:
    """Whether an axis is followed by the number of the row, and, of a slice, by one more."""
    axis, index, end, step = [*relations, None, None, None][:4]
    return (
        isinstance(axis, Fixed) and _counts(index, 0) and (end is None or _counts(end, 1)) and step in (None, Fixed(1))
    )


def _counts(relation: Any, start: int) -> bool:
    return isinstance(relation, Number) and relation.start == start and relation.step == 1


def _counts_rows(relation: Any) -> bool:
    return isinstance(relation, Fixed) or _counts(relation, 0) or _counts(relation, 1)


def _along(log: Log, i: int, axis: Fixed) -> int:
    return log.shape(log.ops[i].args[0])[axis.value]


class RowLoops:
    """Those of one log, whose batch has ``rows`` rows."""

    def __init__(self, log: Log, rows: int) -> None:
        self._log, self.rows = log, rows
        self._ids = self._kinds()
        self.found: list[RowLoop] = []
        self._numbers = self._numbers_read()
        self._inside: dict[int, int] = {}
        if rows >= _FEWEST:
            self._search()

    @property
    def any(self) -> bool:
        """Whether there are loops over rows, or lists with an entry for each row."""
        return bool(self.found) or any(self.is_row(Ref(i)) for i in range(len(self._log.ops)))

    def _kinds(self) -> list[int]:
        table: dict[Any, int] = {}
        return [table.setdefault(op.signature(strict=True), len(table)) for op in self._log.ops]

    def _search(self) -> None:
        at = 0
        while at < len(self._log.ops):
            loop = self._loop_at(at)
            if loop is None:
                at += 1
                continue
            for i in range(loop.start, loop.end):
                self._inside[i] = len(self.found)
            self.found.append(loop)
            at = loop.end

    def address(self, ref: Ref) -> Inside | Outside:
        """Where a value stands: in which turn of a loop, or outside of all."""
        number = self._inside.get(ref.op)
        if number is None:
            return Outside(ref.op, ref.part)
        turn, place = self.found[number].turn(ref.op)
        return Inside(number, place, turn, ref.part)

    def _loop_at(self, at: int) -> RowLoop | None:
        """The loop in whose first turn the operation ``at`` is the first to read the first row of something."""
        for second in self._second_rows(at):
            period = next((i - at for i in range(at + 1, len(self._ids)) if self._reads(i, second)), 0)
            if not period or self._ids[at] != self._ids[at + period]:
                continue
            for start in range(at, max(-1, at - period, self._last_end() - 1), -1):
                if start < at and self._ids[start] != self._ids[start + period]:
                    break
                relations = self._relations(start, period)
                if relations is not None:
                    return RowLoop(start, period, self.rows, relations)
        return None

    def _last_end(self) -> int:
        return self.found[-1].end if self.found else 0

    def _second_rows(self, at: int) -> list[Any]:
        """What ``at`` reads of a first row, as the same of the second."""
        op, found = self._log.ops[at], list[Any]()
        if op.target in READS and self._along_rows(op) and op.args[2:4] in ((0,), (0, 1)):
            found.append((op.args[0], op.args[1], *(k + 1 for k in op.args[2:4])))
        return found + [v for value in leaves(op.everything) if isinstance(value, Ref) for v in self._next_of(value)]

    def _next_of(self, value: Ref) -> list[Ref]:
        where = self.address(value)
        if isinstance(where, Inside) and where.iteration == 0:
            return [Ref(value.op + self.found[where.loop].period, value.part)]
        return [Ref(value.op, 1)] if self.is_row(value) and value.part == 0 else []

    def is_row(self, value: Ref) -> bool:
        """Whether a value is one of a list that has an entry for each row."""
        op = self._log.ops[value.op]
        return op.target in LISTS and len(op.shapes) == self.rows > 1 and set(op.shapes) == {op.shapes[0]}

    def _along_rows(self, op: Op) -> bool:
        shape = self._log.shape(op.args[0])
        return bool(shape) and len(op.args) > 2 and shape[op.args[1]] == self.rows

    def _reads(self, i: int, what: Any) -> bool:
        """Whether an operation reads a value, or what (base, axis, start, end) says."""
        op = self._log.ops[i]
        if isinstance(what, Ref):
            return what in leaves(op.everything)
        return op.target in READS and op.args[1:4] == what[1:] and self._is_same(op.args[0], what[0])

    def _is_same(self, base: Any, first: Any) -> bool:
        """Whether ``base`` is what the first turn read from, or that with its first row written."""
        written = isinstance(base, Ref) and self._log.ops[base.op].target in WRITES
        return base == first or (written and self._log.shape(base) == self._log.shape(first))

    def _relations(self, start: int, period: int) -> list[list[Any]] | None:
        ids, rows, ops = self._ids, self.rows, self._log.ops
        if start + rows * period > len(ids) or any(
            ids[start + i] != ids[start + i + k * period] for k in range(1, rows) for i in range(period)
        ):
            return None
        found = []
        for place in range(period):
            turns = [tuple(leaves(ops[start + k * period + place].everything)) for k in range(rows)]
            if len({len(turn) for turn in turns}) > 1:
                return None
            row = []
            for column in zip(*turns, strict=True):
                relation, n = relate(column, start, period, self.address)
                if type(column[0]) is int and (n < rows or not _counts_rows(relation)):
                    relation, n = self._number(column, start, period), rows
                if relation is None or n < rows or not self._follows(relation):
                    return None
                row.append(relation)
            found.append(row)
        return found if all(map(partial(self._carries_rows, found, start), range(period))) else None

    def _numbers_read(self) -> list[tuple[list[Ref], list[int]]]:
        """What code reads off one tensor for each row: the values, and the numbers."""
        reads = self._log.reads[:_MOST_READS]
        found = []
        for step in range(1, len(reads) // self.rows + 1):
            for first in range(len(reads) - step * (self.rows - 1)):
                some = reads[first : first + step * (self.rows - 1) + 1 : step]
                if len({self._ids[value.op] for value, _ in some}) == 1 and len({value for value, _ in some}) == len(
                    some
                ):
                    found.append(([value for value, _ in some], [number for _, number in some]))
        return sorted(found, key=lambda own: max(value.op for value in own[0]))

    def like(self, numbers: Sequence[int]) -> list[tuple[int, int, int]]:
        """Which numbers of the rows these may be, times 1 or -1, and plus what; those that are read first come first."""
        found = []
        for which, (_, own) in enumerate(self._numbers):
            for sign in (1, -1):
                plus = numbers[0] - sign * own[0]
                if len(own) == len(numbers) and all(n == sign * m + plus for n, m in zip(numbers, own, strict=True)):
                    found.append((which, sign, plus))
        return found

    def read_off(self, which: int) -> list[Ref]:
        """What numbers of the rows are read off, row by row."""
        return self._numbers[which][0]

    def _number(self, column: Sequence[int], start: int, period: int) -> RowNumber | None:
        for found in self.like(column[: self.rows]):
            source, n = relate(self.read_off(found[0]), start, period, self.address)
            fits = source is not None and n >= self.rows and self._follows(source)
            if fits and not isinstance(source, Fixed | Carried):
                return RowNumber(source, *found, most=max(column[: self.rows]))
        return None

    def _follows(self, relation: Any) -> bool:
        """Whether every turn reads its own row of a list."""
        if isinstance(relation, ListItem | LoopItem):
            return bool(relation.start == 0 and relation.step == 1)
        return True

    def _carries_rows(self, relations: list[list[Any]], start: int, place: int) -> bool:
        """Whether what a place has from the turn before is no more than a tensor that is written row by row."""
        for carried in (r for r in relations[place] if isinstance(r, Carried)):
            if len(carried.starts) > 1 or not writes_row(
                self._log, start + carried.place, relations[carried.place], self.rows
            ):
                return False
        return True
