"""What looks back along time without a loop, made to remember: its context becomes a state of the file.

====================================== ======================================= =========================================
in the graph                           in the file                             state
====================================== ======================================= =========================================
``Pad`` before the first step          ``Concat`` of the state and the chunk   the last steps of the two
``Conv`` that pads there               the same, and no padding there          the last steps of its input
``Concat`` of a constant and time      the same                                the last steps; starts as the constant
``CumSum`` along time                  its sum with the state                  the last sum
``Range`` over the steps               its sum with the state                  the steps so far
====================================== ======================================= =========================================

A ``Slice`` that cuts the last steps off before the padding (a shift) is done after it instead, so that nothing is lost.
Whether the file then answers in chunks as it does whole is not believed: verification asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.replace import put_in_place
from rnncore.export.tracing.states import constant_value
from rnncore.runtime.format.axes import BATCH, TIME
from rnncore.runtime.format.signature import StateSpec

_TIME = re.compile(rf"\b{TIME}\b")
_TIME_AND_MORE = re.compile(rf"{TIME}(?: \+ (\d+))?")
_SAME_STEPS = ("Cast", "Identity", "Squeeze", "Unsqueeze")
_TOGETHER = ("Add", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "Mul", "Pow", "Sub")
_LAST = np.iinfo(np.int64).max


def carry_context(model: ir.Model) -> list[StateSpec]:
    """Rewrite ``model``, a main graph with its axes named, in place; returns the states that were made."""
    return _Carrier(model).run()


@dataclass(frozen=True)
class _Layout:
    """Where batch and time are among the axes of a value whose other sizes are fixed."""

    dims: tuple[int | str, ...]
    batch: int
    time: int

    @classmethod
    def of(cls, value: ir.Value | None) -> _Layout | None:
        if value is None or value.shape is None:
            return None
        dims = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)
        free = [axis for axis, d in enumerate(dims) if not isinstance(d, int)]
        batch = [axis for axis in free if dims[axis] == BATCH]
        time = [axis for axis in free if _TIME.search(str(dims[axis]))]
        return cls(dims, batch[0], time[0]) if len(free) == 2 and len(batch) == len(time) == 1 else None

    def shape(self, steps: int) -> tuple[int | str, ...]:
        """With so many steps."""
        return tuple(steps if axis == self.time else d for axis, d in enumerate(self.dims))


class _Carrier:
    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._graph = model.graph
        self._builder = Builder("context", model.graph)
        self._taken = {str(value.name) for value in (*self._graph.inputs, *self._graph.outputs)}
        self._states: list[StateSpec] = []

    def run(self) -> list[StateSpec]:
        handlers: dict[str, Callable[[ir.Node], ir.Value | None]] = {
            "Pad": self._pad,
            "Conv": self._conv,
            "Concat": self._concat,
            "CumSum": self._running_sum,
            "Range": self._steps,
        }
        for node in list(self._graph):
            if node.domain == "" and node.op_type in handlers:
                self._builder.nodes.clear()
                result = handlers[node.op_type](node)
                if result is not None:
                    self._replace(node, result)
        return self._states

    def _replace(self, node: ir.Node, result: ir.Value) -> None:
        old = node.outputs[0]
        self._graph.insert_before(node, self._builder.nodes)
        if result is old:  # the node stays, with another input
            return
        put_in_place(old, result)
        self._graph.remove(node, safe=True)

    # ---------------------------------------------------------------------------------------------- what looks back

    def _pad(self, node: ir.Node) -> ir.Value | None:
        x, layout, pads = node.inputs[0], _Layout.of(node.inputs[0]), _widths(node)
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
        if x is None or layout is None or pads is None or mode != "constant" or len(pads) != 2 * len(layout.dims):
            return None
        before, after = pads[layout.time], pads[layout.time + len(layout.dims)]
        others = [n != 0 for axis, n in enumerate(pads) if axis % len(layout.dims) != layout.time]
        fill = _numbers(node, 2) if len(node.inputs) > 2 and node.inputs[2] is not None else [0]
        if before is None or before <= 0 or any(others) or fill is None or (len(node.inputs) > 3 and node.inputs[3]):
            return None
        y = self._joined(node, x, layout, np.full(_item(layout, before), fill[0]))
        if after is None:  # computed from the steps, as where the last window shall be whole
            given = [0 if place == layout.time else 1 for place in range(len(pads))]
            widths = self._builder.op("Mul", node.inputs[1], self._builder.constant(given))
            return self._builder.op("Pad", y, widths, *node.inputs[2:3], mode="constant")
        if after < 0:  # as ZeroPad2d((0, 0, 1, -1)) shifts
            return self._slice(y, layout.time, 0, after)
        if after:
            widths = self._builder.constant(
                [after if i == layout.time + len(layout.dims) else 0 for i in range(len(pads))]
            )
            y = self._builder.op("Pad", y, widths, *node.inputs[2:3], mode="constant")
        return y

    def _conv(self, node: ir.Node) -> ir.Value | None:
        x, layout = node.inputs[0], _Layout.of(node.inputs[0])
        if x is None or layout is None or layout.time < 2 or layout.batch != 0 or "pads" not in node.attributes:
            return None
        pads, half = list(node.attributes["pads"].as_ints()), len(layout.dims) - 2
        before, after = pads[layout.time - 2], pads[layout.time - 2 + half]
        if before <= 0 or (
            _reaches(node, layout.time - 2, before, after) and not _cut_off(node.outputs[0], layout.time)
        ):
            return None
        pads[layout.time - 2] = 0
        node.replace_input_with(0, self._joined(node, x, layout, np.zeros(_item(layout, before))))
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        return node.outputs[0]

    def _concat(self, node: ir.Node) -> ir.Value | None:
        layout = _Layout.of(node.inputs[-1])
        x = node.inputs[-1]
        if x is None or layout is None or len(node.inputs) != 2:
            return None
        if node.attributes["axis"].as_int() % len(layout.dims) != layout.time:
            return None
        first = constant_value(self._model, node.inputs[0], layout.batch)
        if first is None or first.ndim != len(layout.dims) - 1 or not np.isfinite(first).all():
            return None
        at = layout.time - (layout.batch < layout.time)
        return self._joined(node, x, layout, first) if first.shape == _item(layout, first.shape[at]) else None

    def _running_sum(self, node: ir.Node) -> ir.Value | None:
        x, layout, axis = node.inputs[0], _Layout.of(node.inputs[0]), _numbers(node, 1)
        flags = [node.attributes[name].as_int() for name in ("exclusive", "reverse") if name in node.attributes]
        if x is None or layout is None or axis is None or any(flags):
            return None
        if axis[0] % len(layout.dims) != layout.time:
            return None
        state, spec = self._state(node, "sum", layout.shape(1), x, np.zeros(_item(layout, 1)))
        inner = self._builder.append("CumSum", list(node.inputs), node.attributes.values(), 1)[0]
        y = self._builder.op("Add", inner, state)
        self._end(spec, self._slice(y, layout.time, -1, _LAST), x, layout.shape(1))
        return y

    def _steps(self, node: ir.Node) -> ir.Value | None:
        """Positions in the whole sequence, where these meet a value of every row."""
        positions = node.outputs[0]
        start, step = _numbers(node, 0), _numbers(node, 2)
        dims = [] if positions.shape is None else [str(getattr(d, "value", d)) for d in positions.shape]
        if start is None or step != [1] or dims != [TIME]:
            return None
        meetings = list(_meetings(positions))
        layouts = [_Layout.of(meeting.inputs[1 - place]) if meeting else None for _, meeting, place in meetings]
        if not meetings or any(layout is None for layout in layouts):
            return None
        like = ir.Value(name="", type=ir.TensorType(ir.DataType.INT64))
        state, spec = self._state(node, "steps", (BATCH, 1), like, np.zeros(1))
        self._end(spec, self._builder.op("Add", state, self._builder.op("Shape", positions)), like, (BATCH, 1))
        self._graph.insert_after(node, list(self._builder.nodes))
        self._builder.nodes.clear()
        for (value, meeting, place), layout in zip(meetings, layouts, strict=True):
            assert meeting is not None and layout is not None and value.dtype is not None
            shape = [-1 if axis == layout.batch else 1 for axis in range(len(layout.dims))]
            before = self._builder.op("Cast", state, to=int(value.dtype))
            before = self._builder.op("Reshape", before, self._builder.constant(shape))
            meeting.replace_input_with(place, self._builder.op("Add", value, before))
            self._graph.insert_before(meeting, list(self._builder.nodes))
            self._builder.nodes.clear()
        return None

    # ----------------------------------------------------------------------------------------------------- writing

    def _joined(self, node: ir.Node, x: ir.Value, layout: _Layout, initial: np.ndarray) -> ir.Value:
        """``initial``, without a batch axis, and then x: as a state and the chunk."""
        cut = _cut_at_end(x, layout.time)
        source, wider = (x, layout) if cut is None else (cut[0], _Layout.of(cut[0]))
        if wider is None or wider.time != layout.time:
            source, cut = x, None
        at = layout.time - (layout.batch < layout.time)
        state, spec = self._state(node, "context", layout.shape(initial.shape[at]), x, initial)
        joined = self._builder.op("Concat", state, source, axis=layout.time)
        last = self._slice(joined, layout.time, -initial.shape[at], _LAST)
        self._end(spec, last, x, layout.shape(initial.shape[at]))
        return joined if cut is None else self._slice(joined, layout.time, 0, -cut[1])

    def _slice(self, x: ir.Value, axis: int, start: int, end: int) -> ir.Value:
        return self._builder.op("Slice", x, *(self._builder.constant([n]) for n in (start, end, axis)))

    def _state(
        self, node: ir.Node, what: str, shape: Sequence[int | str], like: ir.Value, initial: np.ndarray
    ) -> tuple[ir.Value, StateSpec]:
        """A new state as an input of the graph; ``initial`` has no batch axis."""
        assert like.dtype is not None
        dtype = np.dtype(like.dtype.numpy())
        name = base = ".".join(filter(None, [_path(node), what]))
        number = 0
        while {name, f"{name}.next"} & self._taken:
            number += 1
            name = f"{base}.{number}"
        self._taken |= {name, f"{name}.next"}
        value = ir.Value(name=name, type=ir.TensorType(like.dtype), shape=ir.Shape(shape))
        self._graph.inputs.append(value)
        start = StateSpec.encode_initial(initial.astype(dtype).ravel())
        plain = len(shape) == 2 and shape[0] == BATCH
        spec = StateSpec(name, f"{name}.next", str(dtype), initial.size, start, None if plain else tuple(shape))
        self._states.append(spec)
        return value, spec

    def _end(self, spec: StateSpec, value: ir.Value, like: ir.Value, shape: Sequence[int | str]) -> None:
        assert like.dtype is not None
        value.name, value.type, value.shape = spec.output, ir.TensorType(like.dtype), ir.Shape(shape)
        self._graph.outputs.append(value)


def _item(layout: _Layout, steps: int) -> tuple[int, ...]:
    """Shape of one row of so many steps."""
    return tuple(d for axis, d in enumerate(layout.shape(steps)) if axis != layout.batch and isinstance(d, int))


def _path(node: ir.Node) -> str:
    """Path, in the user's module, of the part that made a node."""
    scopes = re.findall(r"'([^']*)'", node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
    inside = [scope.removeprefix("module").removeprefix(".") for scope in scopes[:-1] if scope.startswith("module")]
    return inside[-1] if inside else ""


def _numbers(node: ir.Node, place: int) -> list[int] | None:
    """Input ``place`` as integers (a fill value as it is), None if it is not constant."""
    value = node.inputs[place] if place < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy().ravel().tolist()


def _widths(node: ir.Node) -> list[int | None] | None:
    """How much a ``Pad`` adds before and after each axis, None for what is computed; None if it is not known one by one."""
    constant = _numbers(node, 1)
    pieces = node.inputs[1].producer() if node.inputs[1] is not None else None
    if constant is not None or pieces is None or pieces.op_type != "Concat":
        return None if constant is None else list(constant)
    found = [_numbers(pieces, place) for place in range(len(pieces.inputs))]
    alone = [value is not None and value.shape is not None and tuple(value.shape) == (1,) for value in pieces.inputs]
    return [None if one is None else one[0] for one in found] if all(alone) else None


def _cut_at_end(x: ir.Value, axis: int) -> tuple[ir.Value, int] | None:
    """What x is without so many of its last steps, if x is that."""
    node = x.producer()
    if node is None or node.op_type != "Slice" or node.inputs[0] is None or len(node.inputs) < 4:
        return None
    starts, ends, axes = (_numbers(node, place) for place in (1, 2, 3))
    steps = _numbers(node, 4) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    if x.shape is None or starts != [0] or axes is None or axes != [axis] or steps != [1]:
        return None
    if ends is None:  # [: x.shape[1]], of something longer by a fixed number of steps
        longer, shorter = _steps_more(node.inputs[0], axis), _steps_more(x, axis)
        cut = None if longer is None or shorter is None else longer - shorter
        return (node.inputs[0], cut) if cut is not None and cut > 0 else None
    return (node.inputs[0], -ends[0]) if ends[0] < 0 else None


def _steps_more(x: ir.Value, axis: int) -> int | None:
    """How many steps more than the input x has along an axis, None if it is not a fixed number."""
    if x.shape is None:
        return None
    found = _TIME_AND_MORE.fullmatch(str(getattr(x.shape[axis], "value", "")))
    return int(found[1] or 0) if found else None


def _reaches(node: ir.Node, axis: int, before: int, after: int) -> bool:
    """Whether a convolution over whole strides reaches the padding after them."""
    width, stride, dilation = (
        list(node.attributes[name].as_ints())[axis] if name in node.attributes else 1
        for name in ("kernel_shape", "strides", "dilations")
    )
    spare = before - (width - 1) * dilation - 1
    return (spare + after) // stride != spare // stride


def _cut_off(value: ir.Value, axis: int) -> bool:
    """Whether the last steps of ``value`` are cut off wherever it goes."""
    users = [user for user, _ in value.uses()]
    return bool(users) and all(_cut_at_end(user.outputs[0], axis) is not None for user in users)


def _meetings(positions: ir.Value) -> Iterator[tuple[ir.Value, ir.Node | None, int]]:
    """Where positions, perhaps shifted by a constant, meet another value; no node where something else is done to them."""
    for node, place in positions.uses():
        other = node.inputs[1 - place] if node.op_type in _TOGETHER and len(node.inputs) == 2 else None
        shifted = node.op_type == "Add" or (node.op_type == "Sub" and place == 0)
        if node.op_type == "Shape":
            continue
        if (node.op_type in _SAME_STEPS and place == 0) or (
            other is not None and shifted and ir.convenience.get_const_tensor(other) is not None
        ):
            yield from _meetings(node.outputs[0])
        else:
            yield positions, node if other is not None else None, place
