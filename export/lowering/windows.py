"""States that are the last of what was read: windows over time, which need no loop.

A causal convolution that somebody wrote as a step keeps such a state (``torch.cat([state[..., 1:], x], -1)``); so does a
shift by one step.  All windows of a sequence are slices of it, with the state at its front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.lowering.layouts import part_of
from rnncore.export.lowering.steps import StepGraph

_LONGEST = 64
"""Wider windows stay loops: each step is kept as often as a window is wide."""


@dataclass(frozen=True)
class Window:
    """A state that is the last ``width`` entries of what is read, along ``axis`` of a row with its batch."""

    axis: int
    width: int

    @classmethod
    def of(cls, step: StepGraph, results: int) -> Window | None:
        """Whether all that ``step`` does is to let one state move on by one entry; None if not."""
        states = step.inputs[step.reads :]
        if len(states) != 1 or step.reads != 1 or results != 1:
            return None
        told, state, new = step.outputs[0], states[0], step.inputs[0]
        if not step.nodes:  # the state is what was read a step before, whatever its axes are
            return cls(0, 1) if told is new else None
        axis = _appended(told, state, new)
        width = None if axis is None else dims_of(state)[axis]
        if axis is None or not isinstance(width, int) or not 1 < width <= _LONGEST:
            return None
        return cls(axis, width) if dims_of(new)[axis] == 1 else None

    def over_time(self, builder: Builder, start: ir.Value, new: ir.Value, rank: int) -> list[ir.Value]:
        """[the state behind each step [time, batch, ...], and behind the last].

        start: [batch, ...], of ``rank`` axes.  new: [time, batch, ...], what is read.
        """
        ends = [*range(-self.width + 1, 0), np.iinfo(np.int64).max]
        if not self.axis:
            together = builder.op("Concat", builder.op("Unsqueeze", start, builder.constant([0])), new, axis=0)
            return [new, builder.op("Squeeze", _along(builder, together, -1, ends[-1]), builder.constant([0]))]
        axes = builder.constant([self.axis + 1])
        first = builder.op("Transpose", start, perm=[self.axis, *(i for i in range(rank) if i != self.axis)])
        together = builder.op("Concat", first, builder.op("Squeeze", new, axes), axis=0)
        parts = [_along(builder, together, place + 1, end) for place, end in enumerate(ends)]
        last = _along(builder, together, -self.width, ends[-1])
        windows = builder.op("Concat", *(builder.op("Unsqueeze", part, axes) for part in parts), axis=self.axis + 1)
        back = [*range(1, self.axis + 1), 0, *range(self.axis + 1, rank)]
        return [windows, builder.op("Transpose", last, perm=back)]


def _along(builder: Builder, value: ir.Value, start: int, end: int) -> ir.Value:
    return builder.op("Slice", value, *map(builder.constant, ([start], [end], [0])))


def _appended(told: ir.Value, state: ir.Value, new: ir.Value) -> int | None:
    """The axis along which ``told`` is ``state`` without its first entry, and then ``new``; None if it is not."""
    node = told.producer()
    if node is None:
        return None
    if node.op_type == "Concat" and len(node.inputs) == 2 and node.inputs[1] is new:
        axis = node.attributes["axis"].as_int() % len(dims_of(state))
        return axis if _without_first(node.inputs[0], state, axis) else None
    both = node.inputs[0].producer() if node.op_type == "Slice" and node.inputs[0] is not None else None
    if both is None or both.op_type != "Concat" or list(both.inputs) != [state, new]:
        return None
    axis = both.attributes["axis"].as_int() % len(dims_of(state))
    return axis if _without_first(told, node.inputs[0], axis) else None


def _without_first(value: ir.Value | None, of: ir.Value | None, axis: int) -> bool:
    """Whether ``value`` is all of ``of`` but the first entry along ``axis``."""
    node = value.producer() if value is not None else None
    size = dims_of(of)[axis]
    part = part_of(node)
    if node is None or part is None or node.inputs[0] is not of or not isinstance(size, int):
        return False
    start, end, along = part
    return along % len(dims_of(of)) == axis and start in (1, 1 - size) and end is not None and end >= size
