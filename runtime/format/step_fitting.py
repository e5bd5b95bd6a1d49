"""Which function of the steps that go in gives those that come out: the simplest one through what was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile

from rnncore.runtime.format.axes import Steps

_MOST_TIMES = 64
_LINE = 3


class Unfitting(Exception):
    """A size follows no rule that a signature can say."""


def fit_steps(name: str, points: Mapping[int, int], ask: Callable[[int], int | None], multiple: int = 1) -> str:
    """The axis itself, or the simplest (times * n + plus) // over through all points and some more that are asked for.

    points: sizes that come out, by ``n`` that go in.  ask: the size for another n, None where it cannot be told.  multiple:
    every n is one of this.

    Raises:
        Unfitting: there is no such function.
    """
    if all(n == size for n, size in points.items()):
        return name
    known = dict(points)
    (low, small), (high, large) = min(known.items()), max(known.items())
    if large <= small:
        raise Unfitting(f"a size falls or stays from {small} to {large} while axis {name!r} grows from {low} to {high}")
    begin = _begin_of_line(known)
    if begin > low:  # 25 steps of 26 fit such points just as well, as far as one has looked
        raise Unfitting(
            f"a size follows axis {name!r} from {begin} on, and by another rule below: {dict(sorted(known.items()))}"
        )
    far = ask(2 * high) if sorted(known.values())[-_LINE:] == [large] * _LINE else None
    if far == large:  # the last two steps, of however many: (n + 32) // 17 fits them as well, as far as one has looked
        raise Unfitting(
            f"a size stays {large} however long axis {name!r} is, and is less below: {dict(sorted(known.items()))}"
        )
    if far is not None:
        known[2 * high] = far
    edge = _edge(known, ask, multiple)
    if edge is not None:
        known[edge[0]], known[edge[0] - multiple] = edge[1], edge[1] - 1
    for times in range(1, _MOST_TIMES + 1):
        # The slope lies between what the points allow: (large - small) is within 1 of times * (high - low) / over.
        least = max(1, times * (high - low) // (large - small + 1))
        most = times * (high - low) // max(large - small - 1, 1) + 1
        for over in range(least, min(most, least + 4096) + 1):
            # over * size <= times * n + plus < over * (size + 1)
            floor = max(over * size - times * n for n, size in known.items())
            ceiling = min(over * (size + 1) - times * n - 1 for n, size in known.items())
            if floor <= ceiling:
                return Steps(name, times, min(max(floor, 0), ceiling), over)
    raise Unfitting(f"a size follows axis {name!r} by no simple rule: {dict(sorted(known.items()))}")


def _begin_of_line(points: Mapping[int, int]) -> int:
    """The point from which on all sizes, three at least, are as much more than ``n``; the least point if that is none."""
    ordered = sorted(points)
    more = points[ordered[-1]] - ordered[-1]
    line = list(takewhile(lambda n: points[n] - n == more, reversed(ordered)))
    return line[-1] if len(line) >= _LINE else ordered[0]


def _edge(points: Mapping[int, int], ask: Callable[[int], int | None], multiple: int) -> tuple[int, int] | None:
    """The least n, of multiples, at which the size is what it is at the largest point: where a stride begins."""
    ordered = sorted(points)
    high, wanted = ordered[-1], points[ordered[-1]]
    low = max(n for n in ordered if points[n] < wanted)
    while high - low > multiple:
        middle = low + (high - low) // (2 * multiple) * multiple
        size = ask(middle)
        if size is None:
            return None
        low, high = (middle, high) if size < wanted else (low, middle)
    return (high, wanted) if ask(high - multiple) == wanted - 1 else None
