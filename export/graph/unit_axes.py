"""An axis of 1 before the last, put in by one ``Reshape`` and taken out by another, is left out between them.

A module's own step takes chunks of one step, [batch, 1, n], and is traced for all steps at once: [batch, time, 1, n].
"""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.column_ranges import ARITHMETIC
from rnncore.export.graph.dims import adds_one, dims_of, ends_of
from rnncore.export.graph.lying import Change, Dims, Write
from rnncore.export.graph.views import VIEWS


class UnitAxes(Change):
    """An axis of 1 put in before the last."""

    name = "flat"

    def there(self, node: ir.Node) -> bool:
        """A Reshape or Unsqueeze that does nothing else."""
        return node.op_type in VIEWS and self._adds(*ends_of(node))

    def back(self, node: ir.Node) -> bool:
        """Its inverse."""
        return node.op_type in VIEWS and self._adds(*reversed(ends_of(node)))

    def lying(self, dims: Dims) -> Dims:
        """Without that axis."""
        return [*dims[:-2], dims[-1]]

    def make(self, builder: Builder, value: ir.Value, rank: int) -> ir.Value:
        """By an Unsqueeze."""
        return builder.op("Unsqueeze", value, builder.constant([rank - 2]))

    def writer(self, node: ir.Node, own: list[ir.Value], others: list[ir.Value]) -> Write | None:
        """Arithmetic, products with weights, and what works along the last axis."""
        rank = len(dims_of(node.outputs[0]))
        alike = all(len(dims_of(value)) == rank and dims_of(value)[-2] == 1 for value in (*own, *node.outputs))
        if not alike or any(value.shape is None for value in others):
            return None
        spread = node.op_type in ARITHMETIC and all(len(dims_of(value)) < 2 for value in others)
        by_weights = node.op_type == "MatMul" and own == [node.inputs[0]] and len(dims_of(node.inputs[1])) == 2
        if spread or by_weights:
            return Builder.again
        if node.op_type in ("Split", "Concat") and (node.op_type == "Split" or not others):
            axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
            return _along_last if axis % rank == rank - 1 else None
        return None

    def _adds(self, before: Dims, after: Dims) -> bool:
        return len(after) > 2 and adds_one(before, after, len(after) - 2)


def _along_last(builder: Builder, node: ir.Node, inputs: list[ir.Value | None]) -> list[ir.Value]:
    attributes = [own for own in node.attributes.values() if own.name != "axis"]
    return builder.append(node.op_type, inputs, [*attributes, ir.AttrInt64("axis", -1)], len(node.outputs))
