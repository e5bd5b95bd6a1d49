"""Faults planted into an exported graph, each a way in which an exporter can be wrong without failing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnx_ir as ir

from rnncore.runtime.format.container import FINGERPRINT_KEY, stamp
from rnncore.runtime.format.signature import BLANK_FINGERPRINT

Fault = Callable[[ir.Model], int]
"""Changes the model in place; says at how many places."""


def with_fault(data: bytes, fault: Fault) -> bytes:
    """The model file ``data`` with the fault in it and a fingerprint that fits, so that it loads."""
    model = ir.from_proto(onnx.load_from_string(data))
    assert fault(model) > 0, "the fault found no place in this graph: it proves nothing"
    model.metadata_props[FINGERPRINT_KEY] = BLANK_FINGERPRINT
    return stamp(ir.to_proto(model).SerializeToString())


def swap_gates(model: ir.Model) -> int:
    """Rows of two gates exchanged in the recurrent weights of the LSTM."""
    return _change_weights(model, "layers.1.cell.weight_hh", lambda blocks: [blocks[1], blocks[0], *blocks[2:]], 4)


def swap_peepholes(model: ir.Model) -> int:
    return _change_weights(model, "layers.1.cell.weight_peephole", lambda blocks: [blocks[2], blocks[1], blocks[0]], 3)


def drop_bias(model: ir.Model) -> int:
    """Every product in a loop or before it without its bias."""
    places = 0
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is not None and "bias" in str(value.name) and tensor.size > 2:
            value.const_value = ir.tensor(np.zeros_like(tensor.numpy()), name=value.name)
            places += 1
    return places


def swap_states(model: ir.Model) -> int:
    """The LSTM starts with h where c belongs, and c where h belongs."""
    places = 0
    for node in _loops(model):
        first = 2 if node.op_type == "Loop" else 0
        others = 2 if node.op_type == "Loop" else node.attributes["num_scan_inputs"].as_int()
        if len(_body(node).inputs) == others + 2:
            h, c = node.inputs[first], node.inputs[first + 1]
            node.replace_input_with(first, c)
            node.replace_input_with(first + 1, h)
            places += 1
    return places


def stale_state(model: ir.Model) -> int:
    """The body hands its first state on unchanged."""
    places = 0
    for node in _loops(model):
        body, is_loop = _body(node), node.op_type == "Loop"
        old, at = body.inputs[2 if is_loop else 0], 1 if is_loop else 0
        copy = ir.Node("", "Identity", [old], name=f"{old.name}/stale")
        copy.outputs[0].name = f"{old.name}/stale"
        body.append(copy)
        body.outputs[at] = copy.outputs[0]
        places += 1
    return places


def lengths_off_by_one(model: ir.Model) -> int:
    return _retype(model, "Less", "LessOrEqual")


def hold_lost(model: ir.Model) -> int:
    """States move on in the padding."""
    places = 0
    for node in _loops(model):
        for inner in list(_body(node)):
            if inner.op_type == "Where" and _body(node).inputs[2 if node.op_type == "Loop" else 0] in inner.inputs:
                inner.replace_input_with(2, inner.inputs[1])
                places += 1
    return places


def read_forward(model: ir.Model) -> int:
    """A reverse layer walks forward in time."""
    places = 0
    for node in _loops(model):
        if node.op_type == "Scan" and any(node.attributes["scan_input_directions"].as_ints()):
            count = len(node.attributes["scan_input_directions"].as_ints())
            node.attributes["scan_input_directions"] = ir.AttrInt64s("scan_input_directions", [0] * count)
            places += 1
        elif node.op_type == "Loop":
            body = _body(node)
            for inner in list(body):
                if inner.op_type == "Sub" and inner.inputs[1] is body.inputs[0]:
                    inner.outputs[0].replace_all_uses_with(body.inputs[0])
                    places += 1
    return places


def reversal_dropped(model: ir.Model) -> int:
    """What a reverse layer puts out stays in the order in which it was made."""
    places = 0
    for node in list(_nodes(model)):
        if node.op_type == "Scan" and any(node.attributes["scan_output_directions"].as_ints()):
            node.attributes["scan_output_directions"] = ir.AttrInt64s("scan_output_directions", [0])
            places += 1
        elif node.op_type == "Slice":
            producer = node.inputs[0].producer() if node.inputs[0] is not None else None
            if producer is not None and producer.op_type == "Loop":
                node.outputs[0].replace_all_uses_with(producer.outputs[-1])
                places += 1
    return places


def time_and_batch_exchanged(model: ir.Model) -> int:
    """The first layer runs along the batch; seen as wrong numbers if batch and time have the same size."""
    x = model.graph.inputs[0]
    uses = [use for use in x.uses() if use.node.op_type == "Transpose"]  # from batch first to time first
    turned = ir.Node("", "Transpose", [x], [ir.AttrInt64s("perm", [1, 0, 2])], name="turned")
    turned.outputs[0].name = "turned"
    for use in uses:
        use.node.replace_input_with(use.idx, turned.outputs[0])
    model.graph.insert_before(model.graph[0], turned)
    return len(uses)


def state_outputs_exchanged(model: ir.Model) -> int:
    """The file says that the new c is the next h: whole sequences are right, streams are not."""
    key = "rnncore.signature"
    text = model.metadata_props[key]
    h, c, mark = "stack.layers.1.h.next", "stack.layers.1.c.next", "?"
    model.metadata_props[key] = text.replace(h, mark).replace(c, h).replace(mark, c)
    return text.count(h)


def learned_start_forgotten(model: ir.Model) -> int:
    """The file says that every stream starts at zero."""
    signature = json.loads(model.metadata_props["rnncore.signature"])
    places = sum(state["initial"] is not None for state in signature["states"])
    for state in signature["states"]:
        state["initial"] = None
    model.metadata_props["rnncore.signature"] = json.dumps(signature)
    return places


CAUSAL: dict[str, Fault] = {
    "two gates swapped": swap_gates,
    "two peepholes swapped": swap_peepholes,
    "biases dropped": drop_bias,
    "h and c swapped": swap_states,
    "state not handed on": stale_state,
    "lengths off by one": lengths_off_by_one,
    "state moves on in the padding": hold_lost,
    "time and batch exchanged": time_and_batch_exchanged,
    "h and c swapped between chunks": state_outputs_exchanged,
    "learned start forgotten": learned_start_forgotten,
}
REVERSE: dict[str, Fault] = {"reads forward": read_forward, "outputs not turned back": reversal_dropped}


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)


def _loops(model: ir.Model) -> list[ir.Node]:
    return [node for node in _nodes(model) if node.op_type in ("Loop", "Scan")]


def _body(node: ir.Node) -> ir.Graph:
    return node.attributes["body"].as_graph()


def _retype(model: ir.Model, old: str, new: str) -> int:
    found = [node for node in _nodes(model) if node.op_type == old]
    for node in found:
        node.op_type = new
    return len(found)


def _change_weights(
    model: ir.Model, name: str, change: Callable[[list[np.ndarray]], list[np.ndarray]], blocks: int
) -> int:
    found = [v for v in model.graph.initializers.values() if name in str(v.name)]
    for value in found:
        assert value.const_value is not None
        array = value.const_value.numpy()
        axis = int(np.argmax(array.shape))
        value.const_value = ir.tensor(np.concatenate(change(np.split(array, blocks, axis)), axis), name=value.name)
    return len(found)
