"""What the arguments of one operation are over the iterations of a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rnncore.export.tracing.rolling.log import SOURCES, Ref

_STARTS = 3
"""A state that is read two steps later begins with two values, which may be inputs or weights; behind them it is a result."""


@dataclass(frozen=True)
class Inside:
    """Result ``part`` of operation ``place`` of iteration ``iteration`` of loop ``loop``; the iteration may be a formula."""

    loop: int
    place: int
    iteration: Any
    part: int


@dataclass(frozen=True)
class Outside:
    """Result ``part`` of the operation number ``op`` outside of all loops; of a list the part may be a formula."""

    op: int
    part: Any


@dataclass(frozen=True)
class Same:
    """The result of another place in the same iteration."""

    place: int
    part: int


@dataclass(frozen=True)
class Carried:
    """The result of a place ``len(starts)`` iterations ago; at first the ``starts``."""

    place: int
    part: int
    starts: tuple[Any, ...]


@dataclass(frozen=True)
class Fixed:
    """The same value from outside, or the same constant, in every iteration."""

    value: Any


@dataclass(frozen=True)
class Number:
    """``start + step * iteration``; start is a number in one log, a formula of the sizes in the program."""

    start: Any
    step: int | float


@dataclass(frozen=True)
class ListItem:
    """Result number ``start + step * iteration`` of an operation outside that gives a list."""

    op: int
    start: Any
    step: int


@dataclass(frozen=True)
class LoopItem:
    """What a place of an earlier loop gave in its iteration ``start + step * iteration``."""

    loop: int
    place: int
    part: int
    start: Any
    step: int


def relate(
    column: Sequence[Any], first: int, period: int, address: Callable[[Ref], Inside | Outside]
) -> tuple[Any, int]:
    """The relation that ``column``, one argument in each iteration, follows, and for how many iterations it does.

    first: the operation at which the loop begins.  address: where operations before it stand.
    """
    if any(isinstance(value, Ref) for value in column[:_STARTS]):
        return _relate_values(column, first, period, address)
    if type(column[0]) in (int, float):
        return _numbers(column)
    return Fixed(column[0]), _while(lambda k: bool(column[k] == column[0]), len(column))


def _while(holds: Callable[[int], bool], n: int) -> int:
    return next((k for k in range(n) if not holds(k)), n)


def _numbers(column: Sequence[Any]) -> tuple[Any, int]:
    if column[0] == column[1]:  # among them inf, whose difference from itself is no number
        return Fixed(column[0]), _while(lambda k: bool(column[k] == column[0]), len(column))
    if type(column[0]) is int:
        step = column[1] - column[0]
        n = _while(lambda k: column[k] == column[0] + step * k, len(column))
    else:
        step = column[1] - column[0]
        n = _while(lambda k: abs(column[k] - column[0] - step * k) <= 1e-9 * max(1.0, abs(column[k])), len(column))
    return Number(column[0], step), n


def _relate_values(
    column: Sequence[Any], first: int, period: int, address: Callable[[Ref], Inside | Outside]
) -> tuple[Any, int]:
    places: list[tuple[int, int, int] | None] = []  # iteration, place, part of what stands inside
    for value in column:
        inside = isinstance(value, Ref) and value.op >= first
        places.append((*divmod(value.op - first, period), value.part) if inside else None)
    outside = _from_outside(column, places, address) if places[0] is None and places[1] is None else (None, 0)
    k, found = next(((k, p) for k, p in enumerate(places) if p is not None), (0, None))
    if found is None:
        return outside
    delay, place, part = k - found[0], found[1], found[2]
    n = _while(lambda k: k < delay or places[k] == (k - delay, place, part), len(column))
    if (
        n < outside[1]
    ):  # the same code again, right after the loop, reads what the loop gave: a forecast after its history
        return outside
    if delay == 0:
        return Same(place, part), n
    if delay < 0 or any(p is not None for p in places[:delay]):
        return None, 0
    starts = tuple(address(value) if isinstance(value, Ref) else value for value in column[:delay])
    return Carried(place, part, starts), n


def _from_outside(column: Sequence[Any], places: Sequence[Any], address: Callable[[Ref], Any]) -> tuple[Any, int]:
    end = _while(lambda k: places[k] is None and isinstance(column[k], (Ref, *SOURCES)), len(column))
    values = [address(v) if isinstance(v, Ref) else v for v in column[:end]]
    if end < 2:
        return None, 0
    a, b = values[0], values[1]
    if a == b:
        return Fixed(a), _while(lambda k: bool(values[k] == a), end)
    if isinstance(a, Outside) and isinstance(b, Outside) and a.op == b.op:
        step = b.part - a.part
        return ListItem(a.op, a.part, step), _while(lambda k: values[k] == Outside(a.op, a.part + step * k), end)
    if isinstance(a, Inside) and isinstance(b, Inside) and (a.loop, a.place, a.part) == (b.loop, b.place, b.part):
        step = b.iteration - a.iteration
        n = _while(lambda k: values[k] == Inside(a.loop, a.place, a.iteration + step * k, a.part), end)
        return LoopItem(a.loop, a.place, a.part, a.iteration, step), n
    return None, 0
