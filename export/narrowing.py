"""Lengths at which ``forward`` goes another way than its trace: the file refuses them, and says which line asks.

A trace goes one way at every size.  Where ``forward`` asks for the number of steps (``if x.shape[1] > 200``), the file is
right on one side only.  If that side is a range of lengths that has the user's example in it, the file takes just these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rnncore.export.stages import Traced
from rnncore.export.tracing.example import Extent
from rnncore.export.tracing.other_ways import LEAST_RANGE
from rnncore.export.tracing.size_limits import Guard
from rnncore.export.verification.cases import Verdict
from rnncore.export.verification.sizes import MOST_STEPS, broken_at
from rnncore.export.verification.verifier import size_of
from rnncore.runtime.format.axes import BATCH, TIME

_FEWEST = "with {} steps, the fewest, forward gives something else than its way with more: the file takes at least {}"


@dataclass(frozen=True)
class Narrowed:
    """``traced`` with fewer lengths.

    remark: which, and why.  forever: no length is too long, so that it may stream.
    """

    traced: Traced
    remark: str
    forever: bool


def narrowed_lengths(traced: Traced, verdict: Verdict) -> Narrowed | None:
    """Fewer lengths, such that all that is wrong in ``verdict`` lies outside; None if no condition on the length explains it."""
    wrong = verdict.failures("whole")
    example = traced.trace.example
    if TIME not in example.axis_names:
        return None
    low, high = (extent := example.extents.get(TIME, Extent(TIME))).minimum, extent.maximum
    asked: dict[str, Guard] = {}
    for case in wrong:
        for guard in broken_at(traced.trace.limits.guards, {BATCH: case.batch, TIME: case.time}):
            if guard.axes == (TIME,):
                asked.setdefault(guard.text, guard)
                least, most = _range(guard, traced.trace.sizes[TIME])
                low, high = max(low, least), most if high is None else min(high, most or high)
    at_least = not asked and bool(wrong) and all(case.time == low for case in wrong)
    low += extent.multiple if at_least else 0  # a loop that does not turn once, say
    own = size_of(example, TIME)
    most = MOST_STEPS if high is None else high
    if (
        not (asked or at_least)
        or not low <= own <= most
        or most - low + 1 < LEAST_RANGE
        or any(low <= c.time <= most for c in wrong)
    ):
        return None
    extents = {**example.extents, TIME: replace(extent, minimum=low, maximum=high)}
    trace = replace(traced.trace, example=replace(example, extents=extents))
    # Streams begin short: one of fewer steps than the way of the example begins with has no right answer.
    forever = high == extent.maximum and (low == extent.minimum or example.trace_steps is None)
    remark = _remark(list(asked.values()), extents[TIME]) if asked else _FEWEST.format(extent.minimum, low)
    return Narrowed(replace(traced, trace=trace), remark, forever and not at_least)


def _range(guard: Guard, traced_at: int) -> tuple[int, int | None]:
    """The lengths around that of the trace for which ``guard`` holds."""
    turns = guard.turns(TIME, {BATCH: 1}, MOST_STEPS)
    least = max((turn for turn in turns if turn <= traced_at), default=1)
    return least, min((turn - 1 for turn in turns if turn > traced_at), default=None)


def _remark(asked: Sequence[Guard], extent: Extent) -> str:
    guard = asked[0]
    where = f" at {guard.where}" if guard.where else ""
    return (
        f"forward asks{where} whether {guard.text}, and a file goes one way at every size: it takes {extent.axis.expected} "
        "steps"
    )
