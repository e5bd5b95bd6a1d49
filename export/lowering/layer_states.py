"""States of layers without a loop: the nodes that mark them become inputs and outputs of the file, or vanish."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.zero_values import always_zero
from rnncore.export.tracing.recorder import DOMAIN, STATE_IN, STATE_OUT, StreamingLayerCall
from rnncore.runtime.format.signature import StateSpec


def splice_layer_states(model: ir.Model, calls: Mapping[str, StreamingLayerCall], *, lift: bool) -> list[StateSpec]:
    """Replace ``rnncore::StateIn`` and ``rnncore::StateOut`` by what they were given, in place.

    Args:
        model: main graph.
        calls: what each pair of nodes stands for.
        lift: make the state that comes in a graph input, the one that goes out a graph output, unless the module hands
            in another initial state than zeros.

    Returns:
        The lifted states.
    """
    graph = model.graph
    lifted: dict[str, list[StateSpec]] = {}
    for node in [n for n in graph if n.domain == DOMAIN and n.op_type in (STATE_IN, STATE_OUT)]:
        call = calls[node.attributes["call"].as_string()]
        if node.op_type == STATE_IN:
            results: list[ir.Value | None] = list(node.inputs[1:])
            if lift and (not call.given_state or all(always_zero(value) for value in results)):
                lifted[call.name] = _states(call, node.outputs[0].dtype or ir.DataType.FLOAT)
                results = [_input(graph, state) for state in lifted[call.name]]
        else:
            results = list(_released(graph, node, call, lifted.get(call.name, [])))
        for old, new in zip(node.outputs, results, strict=True):
            assert new is not None  # neither node has an absent input
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
    return [state for states in lifted.values() for state in states]


def _released(graph: ir.Graph, node: ir.Node, call: StreamingLayerCall, states: list[StateSpec]) -> list[ir.Value]:
    """What stands for the outputs of a ``StateOut``: y and the states that go out, each exposed in ``states``."""
    builder = Builder(call.name, graph)
    results = [value for value in node.inputs if value is not None]
    for i, state in enumerate(states, 1):
        final = results[i]
        if final.producer() is None or final.is_graph_output():  # a value has one name and one role
            final = results[i] = builder.op("Identity", final)
        final.name, final.shape, final.type = state.output, node.outputs[i].shape, node.outputs[i].type
        graph.outputs.append(final)
    for i, old in enumerate(node.outputs):
        if not old.is_graph_output():
            continue
        if results[i].producer() is None or results[i].is_graph_output():
            results[i] = builder.op("Identity", results[i])
        results[i].name, results[i].shape, results[i].type = old.name, old.shape, old.type
    graph.insert_before(node, builder.nodes)
    return results


def _states(call: StreamingLayerCall, dtype: ir.DataType) -> list[StateSpec]:
    initial = call.layer.initial_state(1, torch.zeros(1))
    if call.given_state:
        initial = tuple(torch.zeros_like(value) for value in initial)
    found = []
    for (name, size), value in zip(call.layer.state_sizes.items(), initial, strict=True):
        full = f"{call.name}.{name}" if call.name else name
        numpy_type = np.dtype(dtype.numpy())
        start = StateSpec.encode_initial(value[0].detach().cpu().numpy().astype(numpy_type))
        found.append(StateSpec(full, f"{full}.next", str(numpy_type), size, start))
    return found


def _input(graph: ir.Graph, state: StateSpec) -> ir.Value:
    dtype = ir.DataType.from_numpy(np.dtype(state.dtype))
    value = ir.Value(name=state.name, type=ir.TensorType(dtype), shape=ir.Shape(("batch", state.size)))
    graph.inputs.append(value)
    return value
