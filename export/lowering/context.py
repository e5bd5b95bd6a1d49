"""What looks back along time without a loop, made to remember: its context becomes a state of the file.

====================================== ======================================= =========================================
in the graph                           in the file                             state
====================================== ======================================= =========================================
``Pad`` before the first step          ``Concat`` of the state and the chunk   the last steps of the two
``Conv`` that pads there               the same, and no padding there          the last steps of its input
``ConvTranspose``, its end cut off     the same, and its beginning cut off     the last steps of its input
``Concat`` of a constant and time      the same                                the last steps; starts as the constant
``Pad`` by the first step again, or    ``Concat`` of the first step in the     the last steps
``Concat`` of it and time              first chunk, of the state in others
``CumSum`` along time                  its sum with the state                  the last sum
====================================== ======================================= =========================================

First steps of their own, positions and starts that are computed from inputs have modules of their own beside this.

A ``Slice`` that cuts the last steps off before the padding (a shift) is done after it instead, so that nothing is lost.
Whether the file then answers in chunks as it does whole is not believed: verification asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from rnncore.export.graph.replace import put_in_place
from rnncore.export.graph.run_overlap import PLAIN_RUNS, RunOverlap
from rnncore.export.lowering.context_states import ContextStates, name_of
from rnncore.export.lowering.first_frames import carry_counts, carry_first_frames, carry_starts
from rnncore.export.lowering.first_steps import carry_first_steps
from rnncore.export.lowering.layouts import Layout, cut_at_end, first_steps, numbers_of
from rnncore.export.lowering.positions import carry_positions
from rnncore.export.tracing.recorder import Call
from rnncore.export.tracing.states import constant_value


def carry_context(
    model: ir.Model,
    calls: Mapping[str, Call],
    paired: Collection[str] = (),
    lengths: str | None = None,
    *,
    rows_end: bool = False,
    runs: RunOverlap = PLAIN_RUNS,
) -> ContextStates:
    """Rewrite ``model``, a main graph with its axes named, in place; returns the states that were made.

    Args:
        calls: the recurrent calls in it.
        paired: inputs that are states by themselves.
        lengths: the input that holds the lengths of the rows, if there is one.
        rows_end: rows may end within a chunk whatever is carried: only what that leaves right is.
        runs: how the runs of a stream lie.
    """
    states = ContextStates(model, lengths, runs)
    if not rows_end:
        carry_first_steps(states)
        RemoveUnusedNodesPass()(model)  # what made the first steps is read by nobody any more
        _Carrier(states).run()
        carry_positions(states)
    carry_first_frames(states)
    carry_starts(states, calls, paired)
    carry_counts(states)
    return states


class _Carrier:
    def __init__(self, states: ContextStates) -> None:
        self._states = states
        self._graph = states.graph
        self._builder = states.builder

    def run(self) -> None:
        handlers: dict[str, Callable[[ir.Node], ir.Value | None]] = {
            "Pad": self._pad,
            "Conv": self._conv,
            "ConvTranspose": self._transposed_conv,
            "Concat": self._concat,
            "CumSum": self._running_sum,
        }
        for node in list(self._graph):
            if node.domain == "" and node.op_type in handlers and self._goes_on(node):
                self._builder.nodes.clear()
                result = handlers[node.op_type](node)
                if result is not None:
                    self._states.one_length = True
                    self._replace(node, result)

    def _goes_on(self, node: ir.Node) -> bool:
        """Whether it is known how much of what ``node`` looks back at the next run has again."""
        layout = Layout.of(node.inputs[-1 if node.op_type == "Concat" else 0])
        return layout is not None and self._states.runs.again(layout.dims[layout.time]) is not None

    def _replace(self, node: ir.Node, result: ir.Value) -> None:
        old = node.outputs[0]
        self._states.insert_before(node)
        if result is old:  # the node stays, with another input
            return
        put_in_place(old, result)
        self._graph.remove(node, safe=True)

    # ---------------------------------------------------------------------------------------------- what looks back

    def _pad(self, node: ir.Node) -> ir.Value | None:
        x, layout, pads = node.inputs[0], Layout.of(node.inputs[0]), _widths(node)
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
        if x is None or layout is None or pads is None or len(pads) != 2 * len(layout.dims):
            return None
        before, after = pads[layout.time], pads[layout.time + len(layout.dims)]
        if before is None or before <= 0:
            return None
        if mode == "edge" and pads == _only(before, layout):
            return self._with_first_again(node, x, layout, before)
        if mode != "constant":
            return None
        others = [n != 0 for axis, n in enumerate(pads) if axis % len(layout.dims) != layout.time]
        fill = numbers_of(node, 2) if len(node.inputs) > 2 and node.inputs[2] is not None else [0]
        if any(others) or fill is None or (len(node.inputs) > 3 and node.inputs[3]):
            return None
        y = self._joined(node, x, layout, np.full(layout.item(before), fill[0]))
        if after is None:  # computed from the steps, as where the last window shall be whole
            given = [0 if place == layout.time else 1 for place in range(len(pads))]
            widths = self._builder.op("Mul", node.inputs[1], self._builder.constant(given))
            return self._builder.op("Pad", y, widths, *node.inputs[2:3])
        if after < 0:  # as ZeroPad2d((0, 0, 1, -1)) shifts
            return self._slice(y, layout.time, 0, after)
        if after:
            widths = self._builder.constant(
                [after if i == layout.time + len(layout.dims) else 0 for i in range(len(pads))]
            )
            y = self._builder.op("Pad", y, widths, *node.inputs[2:3])
        return y

    def _conv(self, node: ir.Node) -> ir.Value | None:
        x, layout = node.inputs[0], Layout.of(node.inputs[0])
        if x is None or layout is None or layout.time < 2 or layout.batch != 0 or "pads" not in node.attributes:
            return None
        pads, half = list(node.attributes["pads"].as_ints()), len(layout.dims) - 2
        before, after = pads[layout.time - 2], pads[layout.time - 2 + half]
        if before <= 0 or (
            _reaches(node, layout.time - 2, before, after) and not _cut_off(node.outputs[0], layout.time)
        ):
            return None
        pads[layout.time - 2] = 0
        node.replace_input_with(0, self._joined(node, x, layout, np.zeros(layout.item(before))))
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        return node.outputs[0]

    def _transposed_conv(self, node: ir.Node) -> ir.Value | None:
        """Each step of x adds to those of y that it stands for, and to some behind them, which the next steps add to as well."""
        x, layout = node.inputs[0], Layout.of(node.inputs[0])
        if x is None or layout is None or layout.time < 2 or layout.batch != 0 or "kernel_shape" not in node.attributes:
            return None
        axis, half = layout.time - 2, len(layout.dims) - 2
        width, stride, dilation = _windows(node, axis)
        more = list(node.attributes["output_padding"].as_ints())[axis] if "output_padding" in node.attributes else 0
        pads = list(node.attributes["pads"].as_ints()) if "pads" in node.attributes else [0] * 2 * half
        before, behind = (width - 1) * dilation // stride, (width - 1) * dilation + 1 - stride + more
        if before <= 0 or pads[axis] or not _cut_off(node.outputs[0], layout.time, behind - pads[axis + half]):
            return None
        pads[axis] = before * stride
        node.replace_input_with(0, self._joined(node, x, layout, np.zeros(layout.item(before))))
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        return node.outputs[0]

    def _concat(self, node: ir.Node) -> ir.Value | None:
        if len(node.inputs) != 2:
            return None
        x, layout = node.inputs[1], Layout.of(node.inputs[1])
        if x is None or layout is None:
            return None
        if node.attributes["axis"].as_int() % len(layout.dims) != layout.time:
            return None
        begin = first_steps(node.inputs[0])
        if begin is not None and (begin[0], begin[2]) == (x, 1):
            return self._with_first_again(node, x, layout, 1)
        first = constant_value(self._states.model, node.inputs[0], layout.batch)
        return None if first is None or not np.isfinite(first).all() else self._joined(node, x, layout, first)

    def _running_sum(self, node: ir.Node) -> ir.Value | None:
        x, layout, axis = node.inputs[0], Layout.of(node.inputs[0]), numbers_of(node, 1)
        flags = [node.attributes[name].as_int() for name in ("exclusive", "reverse") if name in node.attributes]
        if x is None or layout is None or axis is None or any(flags):
            return None
        if axis[0] % len(layout.dims) != layout.time:
            return None
        shape = layout.shape(1)
        state, spec = self._states.state(name_of(node, "sum"), shape, x.dtype, np.zeros(layout.item(1)))
        inner = self._builder.append("CumSum", list(node.inputs), node.attributes.values(), 1)[0]
        y = self._builder.op("Add", inner, state)
        self._states.end(spec, self._states.before_next(y, x, layout.time, 1), x.dtype, shape)
        return y

    # ----------------------------------------------------------------------------------------------------- writing

    def _joined(self, node: ir.Node, x: ir.Value, layout: Layout, initial: np.ndarray) -> ir.Value:
        """``initial``, without a batch axis, and then x: as a state and the chunk."""
        cut = cut_at_end(x, layout.time)
        source, wider = (x, layout) if cut is None else (cut[0], Layout.of(cut[0]))
        if wider is None:
            source, cut = x, None
        at = layout.time - (layout.batch < layout.time)
        shape = layout.shape(initial.shape[at])
        state, spec = self._states.state(name_of(node, "context"), shape, x.dtype, initial)
        joined = self._builder.op("Concat", state, source, axis=layout.time)
        last = self._states.before_next(joined, source, layout.time, initial.shape[at])
        self._states.end(spec, last, x.dtype, shape)
        return joined if cut is None else self._slice(joined, layout.time, 0, -cut[1])

    def _with_first_again(self, node: ir.Node, x: ir.Value, layout: Layout, steps: int) -> ir.Value:
        """The first step of the sequence so many times, and then x: from the second chunk on, the last steps and the chunk."""
        shape = layout.shape(steps)
        before, spec = self._states.state(name_of(node, "context"), shape, x.dtype, np.zeros(layout.item(steps)))
        is_first = self._states.is_first(len(layout.dims), layout.batch)
        first = self._slice(x, layout.time, 0, 1)
        self._states.of_chunks.add(first)
        begin = self._builder.op("Where", is_first, first, before)
        joined = self._builder.op("Concat", begin, x, axis=layout.time)
        self._states.end(spec, self._states.before_next(joined, x, layout.time, steps), x.dtype, shape)
        return joined

    def _slice(self, x: ir.Value, axis: int, start: int, end: int) -> ir.Value:
        return self._states.slice(x, axis, start, end)


def _only(before: int, layout: Layout) -> list[int]:
    """The widths of a ``Pad`` that adds so many steps before the first, and nothing else."""
    return [before if place == layout.time else 0 for place in range(2 * len(layout.dims))]


def _widths(node: ir.Node) -> list[int | None] | None:
    """How much a ``Pad`` adds before and after each axis, None for what is computed; None if it is not known one by one."""
    constant = numbers_of(node, 1)
    pieces = node.inputs[1].producer() if node.inputs[1] is not None else None
    if constant is not None or pieces is None or pieces.op_type != "Concat":
        return None if constant is None else list(constant)
    found = [numbers_of(pieces, place) for place in range(len(pieces.inputs))]
    alone = [value is not None and value.shape is not None and tuple(value.shape) == (1,) for value in pieces.inputs]
    return [None if one is None else one[0] for one in found] if all(alone) else None


def _reaches(node: ir.Node, axis: int, before: int, after: int) -> bool:
    """Whether a convolution over whole strides reaches the padding after them."""
    width, stride, dilation = _windows(node, axis)
    spare = before - (width - 1) * dilation - 1
    return (spare + after) // stride != spare // stride


def _windows(node: ir.Node, axis: int) -> tuple[int, int, int]:
    """Width, stride and dilation of a convolution along one of its axes, counted without batch and channels."""
    width, stride, dilation = (
        list(node.attributes[name].as_ints())[axis] if name in node.attributes else 1
        for name in ("kernel_shape", "strides", "dilations")
    )
    return width, stride, dilation


def _cut_off(value: ir.Value, axis: int, steps: int = 1) -> bool:
    """Whether the last steps of ``value``, so many at least, are cut off wherever it goes."""
    cuts = [cut_at_end(user.outputs[0], axis) for user, _ in value.uses()]
    return bool(cuts) and all(cut is not None and cut[1] >= steps for cut in cuts)
