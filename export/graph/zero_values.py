"""Recognise an initial state that the user's code writes out as zeros: it means the same as none at all."""

from __future__ import annotations

import onnx_ir as ir

MOVES = {
    "Cast",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
}
MOVES |= {"Unsqueeze"}  # operators whose output holds only entries of their first input


def always_zero(value: ir.Value | None) -> bool:
    """True when ``value`` is zero whatever the inputs of the graph are, such as ``torch.zeros(layers, batch, size)``."""
    if value is None:
        return False
    if value.const_value is not None:
        return not value.const_value.numpy().any()
    node = value.producer()
    if node is None:
        return False
    if node.op_type in MOVES:
        return always_zero(node.inputs[0])
    if node.op_type in ("Concat", "Add"):
        return all(always_zero(part) for part in node.inputs)
    if node.op_type == "ConstantOfShape":
        filled = node.attributes.get("value")
        return filled is None or not filled.as_tensor().numpy().any()
    return False
