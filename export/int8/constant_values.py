"""What a value of a graph is when it depends on weights only."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

_CHEAP = {"Transpose", "Reshape", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Identity", "Cast", "Neg"}
_CHEAP |= {
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Gather",
    "Expand",
    "Flatten",
}  # what rearranges or combines weights without growing them


class ConstantValues:
    """Evaluates values that depend on initializers only, with onnx's reference implementation."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, np.ndarray | None] = {}

    def of(self, value: ir.Value | None) -> np.ndarray | None:
        """The array, or None when ``value`` depends on an input of the graph (one with a default included)."""
        if value is None:
            return None
        if value not in self._known:
            self._known[value] = self._evaluate(value)
        return self._known[value]

    def _evaluate(self, value: ir.Value) -> np.ndarray | None:
        if value.is_graph_input():
            return None
        if value.const_value is not None:
            return value.const_value.numpy()
        node = value.producer()
        if node is None or node.domain or node.op_type not in _CHEAP:
            return None
        arrays = [None if v is None else self.of(v) for v in node.inputs]
        if any(a is None and v is not None for a, v in zip(arrays, node.inputs, strict=True)):
            return None
        feeds = {str(v.name): a for v, a in zip(node.inputs, arrays, strict=True) if v is not None}
        results = ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)
        for output, array in zip(node.outputs, results, strict=True):
            self._known[output] = array
        return self._known[value]
