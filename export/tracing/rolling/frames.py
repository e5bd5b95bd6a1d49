"""How many frames a signal has: windows and strided convolutions say it, whatever their stride."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rnncore.export.tracing.rolling.log import Log, Op
from rnncore.runtime.format.axes import TIME

aten = torch.ops.aten
Rule = tuple[int, int]
"""(divisor, shift): there are (time + shift) // divisor frames."""


def frame_rules(logs: Sequence[Log]) -> list[Rule]:
    """The rules of all windows in ``logs``; of those that are found by trying, others may fit by accident."""
    if any(TIME not in log.sizes for log in logs):
        return []
    found = [set(rule for op in log.ops for rule in _of(op, log)) for log in logs]
    return sorted(set.intersection(*found)) if found else []


def are_told(logs: Sequence[Log], rules: Sequence[Rule]) -> bool:
    """Whether ``logs`` differ in frames by each rule; else it looks as if there were always so many."""
    return all(len({(log.sizes[TIME] + shift) // divisor for log in logs}) > 1 for divisor, shift in rules)


def _of(op: Op, log: Log) -> Iterator[Rule]:
    if op.target is aten.unfold.default:
        value, dim, size, step = op.args
        yield from _rule(log, log.shape(value)[dim], size - 1, step)
    elif op.target is aten.convolution.default:
        value, weight, _, strides, pads, dilations, transposed, *_ = op.args
        if not transposed:
            kernel = log.shape(weight)[2:]
            for place, size in enumerate(log.shape(value)[2:]):
                reach = dilations[place] * (kernel[place] - 1) - 2 * pads[place]
                yield from _rule(log, size, reach, strides[place])


def _rule(log: Log, size: int, reach: int, step: int) -> Iterator[Rule]:
    if step > 1:
        yield step, size - log.sizes[TIME] - reach - 1 + step
