"""Which operations before a loop do what its places do: the step that would come before its first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import leaves
from rnncore.export.tracing.rolling.merging import Block, Program, Statement
from rnncore.export.tracing.rolling.relations import Carried, Fixed, Inside, ListItem, LoopItem, Number, Outside, Same

aten = torch.ops.aten
COLLECTING = (aten.select_scatter.default, aten.slice_scatter.default, aten.cat.default)
_PICKS = (aten.select.int, aten.slice.Tensor)
Key = tuple[int, int]


class _Sizes(dict[str, int]):
    """A size for every axis, far from others; ``more`` than another one."""

    def __init__(self, more: int) -> None:
        super().__init__()
        self._more = more

    def __missing__(self, key: str) -> int:
        self[key] = 1009 + 211 * (sum(map(ord, key)) % 89) + self._more
        return self[key]


def equal(a: Any, b: Any) -> bool:
    """Whether two numbers or formulas are the same."""
    if not (isinstance(a, Formula | int | float) and isinstance(b, Formula | int | float)):
        return bool(a == b)
    divisors = [value.divisor for value in (a, b) if isinstance(value, Formula)]
    for more in range(math.lcm(*divisors)):  # n // 2 is (n + 1) // 2 at every second size
        sizes = _Sizes(more)
        first, second = (value(sizes) if isinstance(value, Formula) else value for value in (a, b))
        if first != second:
            return False
    return True


def plus(formula: Any, number: float) -> Any:
    """``formula + number``."""
    if not isinstance(formula, Formula):
        return formula + number
    return replace(formula, terms=(*formula.terms, (number, ())))


def earlier(relation: Any) -> Any:
    """A relation of a loop that begins one iteration earlier."""
    if isinstance(relation, Number | ListItem | LoopItem):
        return replace(relation, start=plus(relation.start, -relation.step))
    return relation


class Matching:
    """Operations outside by the place of ``block`` that they are, one iteration before its first.

    starts: of what the block carries.  every: whether places that read the past may be matched; else only those that collect
    results.  before: what carried values were, as far as matched operations say so.  waiting: places that read the past.
    """

    def __init__(self, program: Program, block: Block, starts: Mapping[Key, Any], *, every: bool) -> None:
        self._program, self._block, self._starts, self._every = program, block, starts, every
        self._same: dict[int, int] = {}
        self.before: dict[Key, Any] = {}
        self.waiting = self._waiting()
        self._first_like = self._without_repetition()
        self._by_target: dict[Any, list[int]] = {}
        for place, statement in enumerate(block.statements):
            self._by_target.setdefault(statement.op.target, []).append(place)
        for number, statement in enumerate(program.statements):
            for place in self._by_target.get(statement.op.target, ()):
                if self._is_same(statement, place):
                    self._same[number] = place
                    break

    def place_of(self, value: Any) -> int | None:
        """The place that gives ``value`` in the step before the first."""
        return self._same.get(value.op) if isinstance(value, Outside) and isinstance(value.part, int) else None

    def is_at(self, value: Any, place: int, part: int) -> bool:
        """Whether ``value`` is what that place gives."""
        found = self.place_of(value)
        return found is not None and self._first_like[found] == self._first_like[place] and value.part == part

    def moving_of(self, value: Any) -> Any:
        """What moves through the block and is ``value`` in the step before the first, from that step on; None if nothing is."""
        for statement in self._block.statements:
            for r in leaves(statement.arguments):
                if isinstance(r, Number | ListItem | LoopItem) and self._moves_to(value, earlier(r)):
                    return earlier(r)
        return None

    def picked(self, statement: Statement) -> Any:
        """Arguments of ``statement`` in the loop, if it picks the entry of this step from what the loop picks entries of."""
        if statement.op.target is not aten.select.int:
            return None
        base, dim, index = statement.arguments[0]
        for place in (p for p, s in enumerate(self._block.statements) if s.op.target in _PICKS):
            own, own_dim, own_index, *_ = self._block.statements[place].arguments[0]
            moves = isinstance(own_index, Number) and equal(index, earlier(own_index).start)
            if own == Fixed(base) and isinstance(own_dim, Fixed) and equal(own_dim.value, dim) and moves:
                return ((own, own_dim, earlier(own_index)), ())
        return None

    def _waiting(self) -> set[int]:
        found: set[int] = set()
        for place, statement in enumerate(self._block.statements):
            if any(
                isinstance(r, Carried) or (isinstance(r, Same) and r.place in found)
                for r in leaves(statement.arguments)
            ):
                found.add(place)
        return found

    def _without_repetition(self) -> list[int]:
        """For each place the first that computes the same."""
        known: dict[Any, int] = {}
        found: list[int] = []
        for place, statement in enumerate(self._block.statements):
            key = [replace(r, place=found[r.place]) if isinstance(r, Same) else r for r in leaves(statement.arguments)]
            found.append(known.setdefault((str(statement.op.target), *map(repr, key)), place))
        return found

    def _is_same(self, statement: Statement, place: int) -> bool:
        own = self._block.statements[place]
        values, relations = list(leaves(statement.arguments)), list(leaves(own.arguments))
        if len(values) != len(relations) or sorted(statement.op.kwargs) != sorted(own.op.kwargs):
            return False
        if statement.op.dtypes != own.op.dtypes:
            return False
        bound: dict[Key, Any] = {}
        for value, r in zip(values, relations, strict=True):
            if isinstance(r, Carried):
                key = (r.place, r.part)
                if not self._every and own.op.target not in COLLECTING:
                    return False
                if self.before.get(key, bound.setdefault(key, value)) != value:
                    return False
            elif isinstance(r, Same):
                if not self.is_at(value, r.place, r.part) and self._starts.get((r.place, r.part)) != value:
                    return False
            elif isinstance(r, Fixed):
                if not equal(value, r.value):
                    return False
            elif not self._moves_to(value, earlier(r)):
                return False
        self.before.update(bound)
        return True

    def _moves_to(self, value: Any, relation: Any) -> bool:
        if isinstance(relation, Number):
            return isinstance(value, Formula) and equal(value, relation.start)
        if isinstance(relation, ListItem):
            return isinstance(value, Outside) and value.op == relation.op and equal(value.part, relation.start)
        return (
            isinstance(value, Inside)
            and (value.loop, value.place, value.part) == (relation.loop, relation.place, relation.part)
            and equal(value.iteration, relation.start)
        )
