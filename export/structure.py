"""What the structure of a traced module already tells about streaming, before anything is run."""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.recorder import DOMAIN
from rnncore.export.tracing import Trace
from rnncore.runtime.signature import BATCH, TIME


def why_not_causal(traced: Trace) -> str:
    """Why the module cannot stream, naming the layer; empty when the structure does not forbid it."""
    for call in traced.calls.values():
        if call.layer.reverse:
            return f"layer '{call.name}' reads backward in time (bidirectional or reverse)"
    for node in traced.model.graph:
        if node.domain != DOMAIN:
            continue
        name = node.attributes["call"].as_string()
        dims = _dims(node.inputs[0])
        if dims[:1] != [BATCH] and not traced.calls[name].given_state:
            return f"layer '{name}' runs over a batch of {dims[0]}, not over the batch of the inputs"
        if dims[1:2] != [TIME]:
            return f"layer '{name}' runs over {dims[1]} steps, not over the time steps of the inputs"
    if not any(TIME in _dims(value) for value in traced.model.graph.inputs):
        return "no input has a time axis"
    return ""


def _dims(value: ir.Value | None) -> list[int | str | None]:
    if value is None or value.shape is None:
        return []
    return [d if isinstance(d, int) else d.value for d in value.shape]
