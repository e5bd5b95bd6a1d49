"""What the first step of a sequence, or an input without time, gives to all others: it is kept, or taken at first only.

================================== ====================================================== ==========================
in the graph                       in the file                                            state
================================== ====================================================== ==========================
``x[:, 0]``, ``x[:, :1]``          what came first in the sequence                        that
a start that forward computes      taken in the first chunk only                          what the layer ended with
of the first step, or of inputs
without time
================================== ====================================================== ==========================
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from rnncore.cells.base import state_shape
from rnncore.export.graph.replace import put_in_place
from rnncore.export.graph.zero_values import always_zero
from rnncore.export.lowering.context_states import ContextStates, name_of
from rnncore.export.lowering.layouts import Layout, first_steps, sizes_of
from rnncore.export.tracing.recorder import DOMAIN, OP_TYPE, Call
from rnncore.export.tracing.rolling.cell import RolledCell
from rnncore.export.tracing.states import FIRST_STATE, constant_starts
from rnncore.runtime.format.axes import BATCH, TIME


def carry_first_frames(states: ContextStates) -> None:
    """Keep the first step of a sequence where it is read as such."""
    for node in list(states.graph):
        found = first_steps(node.outputs[0]) if node.outputs and node.domain == "" else None
        if found is None or found[2] != 1 or not _is_read(node.outputs[0]) or node.outputs[0] in states.of_chunks:
            continue
        x, axis, _ = found
        layout = Layout.of(x)
        assert layout is not None
        own = sizes_of(node.outputs[0])
        gone = len(own) < len(layout.dims)
        shape = [size for place, size in enumerate(layout.shape(1)) if place != axis or not gone]
        batch = shape.index(BATCH)
        item = [size for size in shape if isinstance(size, int)]
        before, spec = states.state(name_of(node, "first"), shape, x.dtype, np.zeros(item))
        users = list(node.outputs[0].uses())
        first = states.builder.op("Where", states.is_first(len(shape), batch), node.outputs[0], before)
        first.type, first.shape = node.outputs[0].type, ir.Shape(shape)
        states.graph.insert_after(node, list(states.builder.nodes))
        states.builder.nodes.clear()
        for user, place in users:
            user.replace_input_with(place, first)
        states.end(spec, first, x.dtype, shape)


def _is_read(value: ir.Value) -> bool:
    return any(node.op_type != "Shape" for node, _ in value.uses()) and not value.is_graph_output()


def carry_starts(states: ContextStates, calls: Mapping[str, Call], paired: Collection[str]) -> None:
    """Take what forward starts a layer from in the first chunk only; ``paired``: inputs that are states themselves."""
    constant = constant_starts(states.model) if any(call.given_state for call in calls.values()) else {}
    for node in list(states.graph):
        if node.domain != DOMAIN or node.op_type != OP_TYPE:
            continue
        name = node.attributes["call"].as_string()
        call = calls[name]
        sizes = [state_shape(size) for size in call.cell.state_sizes.values()]
        given = list(node.inputs[FIRST_STATE : FIRST_STATE + len(sizes)])
        if not call.given_state or name in constant or all(always_zero(value) for value in given):
            continue
        if isinstance(call.cell, RolledCell) and call.cell.is_free:
            continue
        if not all(_is_known_at_first(states, value, paired) for value in given):
            continue
        _start(states, node, call, sizes)


def carry_counts(states: ContextStates) -> None:
    """Lengths that the module gives back say how long the sequence is by now, not how long the chunk."""
    if states.lengths is None:
        return
    for output in list(states.graph.outputs):
        value: ir.Value | None = output
        while value is not None and (node := value.producer()) is not None and node.op_type in ("Cast", "Identity"):
            value = node.inputs[0]
        last = output.producer()
        if value is not states.lengths or last is None or output.dtype is None:
            continue
        before = states.builder.op("Squeeze", states.steps_before(), states.builder.constant([1]))
        before = states.builder.op("Cast", before, to=int(output.dtype))
        counted = states.builder.op("Cast", last.inputs[0], to=int(output.dtype))
        total = states.builder.op("Add", counted, before)
        states.insert_before(last)
        put_in_place(output, total)
        states.graph.remove(last, safe=True)


def _start(states: ContextStates, node: ir.Node, call: Call, sizes: Sequence[tuple[int, ...]]) -> None:
    for place, (name, size) in enumerate(zip(call.cell.state_sizes, sizes, strict=True)):
        value, final = node.inputs[FIRST_STATE + place], node.outputs[1 + place]
        kind = node.outputs[0].dtype or ir.DataType.FLOAT
        full = f"{call.name}.{name}" if call.name else name
        before, spec = states.state(full, (BATCH, *size), kind, np.zeros(prod(size)))
        taken = states.builder.op("Where", states.is_first(1 + len(size), 0), value, before)
        states.insert_before(node)
        node.replace_input_with(FIRST_STATE + place, taken)
        if final.is_graph_output():  # the module returns it as well
            final = states.builder.op("Identity", final)
            states.graph.insert_after(node, list(states.builder.nodes))
            states.builder.nodes.clear()
        states.end(spec, final, kind, (BATCH, *size))


def _is_known_at_first(states: ContextStates, start: ir.Value | None, paired: Collection[str]) -> bool:
    """Whether a start is made of the first step, or of inputs without time that are no states themselves."""
    own = {spec.name for spec in states.specs}
    todo, seen = [start], set[ir.Value]()
    while todo:
        value = todo.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        if value.is_graph_input():
            name = str(value.name)
            if name in own:
                continue
            if name in paired or TIME in " ".join(map(str, sizes_of(value))) or _comes_back(states.graph, value):
                return False
            continue
        node = value.producer()
        if node is None or node.op_type == "Shape":
            continue
        if node.domain == DOMAIN:
            return False
        if any(str(size).find(TIME) >= 0 for size in sizes_of(value)):
            return False
        kept = node.op_type == "Where" and any(part in own for part in (getattr(i, "name", "") for i in node.inputs))
        if not kept:
            todo += node.inputs
    return True


def _comes_back(graph: ir.Graph, value: ir.Value) -> bool:
    """Whether an output has the shape of an input without time: it may be what the input becomes, and nobody has said so."""
    return any(sizes_of(output) == sizes_of(value) and output.dtype == value.dtype for output in graph.outputs)
