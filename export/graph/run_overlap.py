"""Of which values the runs of a stream compute some steps again, and how many."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from rnncore.export.graph.dims import size_at
from rnncore.runtime.format.axes import TIME

_MOST_APART = 64
"""So many steps a stream waits for at most because of a loop: an answer that comes later is hardly one of a stream."""


def period_of(size: int | str | None) -> int:
    """The least number of steps after which a size that follows time has always grown by as many; 1 if nobody can tell.

    2 of ``(time + 1)//2``, over which a loop runs that takes every second step.
    """
    sizes = [size_at(size, {TIME: steps}) for steps in range(1, 3 * _MOST_APART + 1)]
    known = [each for each in sizes if each is not None]
    if len(known) < len(sizes):
        return 1
    grown = [after - before for before, after in pairwise(known)]
    return next((n for n in range(1, _MOST_APART + 1) if grown[n:] == grown[:-n]), 1)


@dataclass(frozen=True)
class RunOverlap:
    """How the runs of a stream lie: each begins with ``steps`` input steps of the run before, then come whole strides."""

    steps: int = 0
    stride: int = 1

    def again(self, size: int | str | None) -> int | None:
        """Steps of a value, ``size`` long, that the run before computed as well; None if they are not always as many.

        Behind a window of three steps there are two less than before it.
        """
        if self.steps == 0:
            return 0
        found = [size_at(size, {TIME: self.steps + n * self.stride}) for n in range(5)]
        known = [each for each in found if each is not None]
        grown = {after - before for before, after in pairwise(known)}
        return max(0, known[0]) if len(known) == len(found) and len(grown) == 1 and grown != {0} else None


PLAIN_RUNS = RunOverlap()
"""Each run begins where the one before ended."""
