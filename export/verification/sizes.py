"""The sizes at which a file is compared with its module: on both sides of every number that its program asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rnncore.export.tracing.size_limits import Guard, SizeLimits
from rnncore.runtime.format.signature import BATCH, TIME

MOST_STEPS = 8192
"""Longest sequence of verification, where the example itself is not longer: what attends over it takes a quarter of a GB."""
MOST_ROWS = 256
MOST_ENTRIES = 1 << 16
"""Batch times time of one comparison, at most."""
MOST_SIZES = 24
"""Sizes that are tried because of numbers in the program, at most; those of guards go first."""

SHORT_STREAM = 13
PARTS = 16  # a long stream is fed in about so many equal chunks
_SIDE = {BATCH: 2, TIME: 7}  # the size of one axis while the other crosses a number
_ROWS = (1, 2, 5, 16)  # batches at which a guard on both axes is looked at


@dataclass(frozen=True)
class Sizes:
    """Which sizes, besides those that are always tried.

    whole: (batch, time) on both sides of guards and numbers.  streams: steps of the longest stream, and of shorter ones for a
    module that does not run so long.  unchecked: guards that turn only at sizes beyond :data:`MOST_STEPS`.  too_far: why no
    stream can be checked, empty if one can.
    """

    whole: tuple[tuple[int, int], ...]
    streams: tuple[int, ...]
    unchecked: tuple[Guard, ...]
    too_far: str

    @classmethod
    def of(
        cls,
        limits: SizeLimits,
        example_steps: int,
        axes: Iterable[str] = (BATCH, TIME),
        least: Mapping[str, int] | None = None,
        most: Mapping[str, int] | None = None,
    ) -> Sizes:
        """Chosen for a program and the number of steps of the user's own example.

        least: sizes of axes, where not 1.  most: the same, where there is an end.
        """
        free = set(axes)
        sizes: dict[tuple[int, int], None] = {}
        unchecked = []
        for guard in limits.guards:
            found = _sides(guard)
            sizes.update(dict.fromkeys(found))
            if not found and guard.own and _turns_far(guard, least or {}, most or {}):
                unchecked.append(guard)
        for value in sorted({n.value for n in limits.numbers if n.axis == TIME}):
            sizes.update(dict.fromkeys((1, n) for n in (value - 1, value, value + 1) if n <= MOST_STEPS))
        reach = min(limits.reach, MOST_STEPS - PARTS)
        if limits.reach:
            sizes[1, reach + PARTS] = None
        kept = [size for size in sizes if free >= {BATCH, TIME} or (size[1] == _SIDE[TIME] and BATCH in free)]
        far = [n for n in limits.numbers if n.axis == TIME and n.reaches and n.value > MOST_STEPS - PARTS]
        too_far = (
            f"it looks {far[0].value} steps back ({far[0].where}), more than {MOST_STEPS} are not checked"
            if far
            else ""
        )
        streams = {SHORT_STREAM, example_steps, *([reach + PARTS] if limits.reach else [])}
        for guard in limits.guards:  # beyond where it turns; or up to there, as far as a table goes
            timed = TIME in guard.axes and set(guard.axes) <= {BATCH, TIME}
            turns = guard.turns(TIME, {BATCH: 1}, MOST_STEPS - PARTS) if timed else []
            streams |= {steps for turn in turns for steps in (turn - 1, turn + PARTS)}
        lengths = sorted((n for n in streams if n >= SHORT_STREAM), reverse=True)
        return cls(tuple(_spread(kept, MOST_SIZES)), tuple(lengths), tuple(unchecked), too_far)


def chunkings(steps: int) -> list[tuple[int, ...]]:
    """How a long stream is cut: one chunk that is longer than every reach, then short ones; and even chunks."""
    if steps <= SHORT_STREAM:
        return []
    half = steps // 2 + 1
    short = (1, 3, 2) if steps - half > 6 else (1,)
    even = -(-steps // PARTS)
    full, rest = divmod(steps, even)
    return [(half, *short, steps - half - sum(short)), (even,) * full + (rest,) * bool(rest)]


def _sides(guard: Guard) -> list[tuple[int, int]]:
    """(batch, time) just before and just after the places where ``guard`` turns."""
    found = []
    if guard.axes == (BATCH,):
        found = [(n + i, _SIDE[TIME]) for n in guard.turns(BATCH, _SIDE, MOST_ROWS) for i in (-1, 0)]
    elif guard.axes == (TIME,):
        found = [(1, n + i) for n in guard.turns(TIME, _SIDE, MOST_STEPS) for i in (-1, 0)]
    elif set(guard.axes) == {BATCH, TIME}:
        for rows in _ROWS:
            turns = guard.turns(TIME, {BATCH: rows}, min(MOST_STEPS, MOST_ENTRIES // rows))
            found += [(rows, n + i) for n in turns for i in (-1, 0)]
        for steps in (1, 31):
            found += [(n + i, steps) for n in guard.turns(BATCH, {TIME: steps}, MOST_ROWS) for i in (-1, 0)]
    return [(rows, steps) for rows, steps in _spread(found, 8) if rows * steps <= MOST_ENTRIES]


def _turns_far(guard: Guard, least: Mapping[str, int], most: Mapping[str, int]) -> bool:
    """Whether a guard turns at sizes that the axes take and memory may hold."""
    others = {axis: least.get(axis, 1) for axis in guard.axes}
    return any(
        size > others[axis] for axis in guard.axes for size in guard.turns(axis, others, most.get(axis, 1 << 30))
    )


def _spread(items: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """At most ``most`` of ``items``, the first and the last among them."""
    unique = list(dict.fromkeys(items))
    if len(unique) <= most:
        return unique
    return [unique[round(i * (len(unique) - 1) / (most - 1))] for i in range(most)]


def broken_at(guards: Sequence[Guard], sizes: Mapping[str, int]) -> list[Guard]:
    """Guards that do not hold at ``sizes``, those of the user's own lines first."""
    found = [guard for guard in guards if set(guard.axes) <= set(sizes) and not guard.holds(sizes)]
    return sorted(found, key=lambda guard: not guard.own)
