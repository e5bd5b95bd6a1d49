"""What a traced module computes from a layer's input before its loop, so that it can be written where it is needed.

The trace holds it once, batch first and as a whole.  A loop over many steps wants it time first and cut by gate, and a
single step wants neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from rnncore.export.gate_splitting.gate_split import GateSplit
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.column_ranges import ELEMENTWISE, ColumnRange, split

_AXES = {"Concat": None, "LayerNormalization": -1, "LogSoftmax": -1, "Softmax": -1, "Split": 0}
"""Operators that work along one axis, and which that is where it is not said."""
_MOST_NODES = 100  # of a projection; more is a whole network that leads to z without coming through x


@dataclass
class Projection:
    """``x [..., input size] -> z [..., z size]``, which treats every row and step alike.

    nodes: in order; they stay where they are.  constants: values that depend on weights only.
    """

    x: ir.Value
    z: ir.Value
    nodes: list[ir.Node]
    constants: set[ir.Value]

    @classmethod
    def between(cls, x: ir.Value, z: ir.Value) -> Projection | None:
        """What leads from ``x`` to ``z``, [batch, time, size] both; None if it may depend on where these axes are."""
        found: dict[ir.Node, bool] = {}  # whether it depends on x
        if z is x or not _search(z, x, found, set()) or x.shape is None:
            return None
        constants = {value for node, varies in found.items() if not varies for value in node.outputs}
        constants |= {v for node in found for v in node.inputs if v is not None and v.const_value is not None}
        nodes = [node for node, varies in found.items() if varies]
        projection = cls(x, z, nodes, constants)
        alike = all(_position_wise(node, constants, len(x.shape)) for node in nodes)
        return projection if nodes and alike and projection._columns([]).clean else None

    def emit(self, builder: Builder, x: ir.Value, parts: Sequence[ColumnRange], *, copy: bool) -> list[ir.Value]:
        """The columns ``parts`` of z of another x, of any rank; all of z if there are none.

        copy: let matrices be constants of the graph that is written, so that onnxruntime packs them.
        """
        columns = self._columns(parts)
        if not columns.clean:
            (z,) = self.emit(builder, x, [], copy=copy)
            return split(builder, z, parts, int(self.z.shape[-1]), -1)  # type: ignore[index,arg-type]
        known = {self.x: x, **{value: value for value in self.constants}}
        pieces = columns.emit_pieces(builder, known)
        for value in dict.fromkeys(node.inputs[1] for node in self.nodes if copy and node.op_type == "MatMul"):
            if value is not None and not columns.cuts(value):
                known[value] = builder.op("Flatten", value, axis=1)
        return columns.emit(builder, known, [], pieces)

    def _columns(self, parts: Sequence[ColumnRange]) -> GateSplit:
        return GateSplit(self.nodes, [(self.z, parts)], None, self.constants)


def _search(value: ir.Value, x: ir.Value, found: dict[ir.Node, bool], begun: set[ir.Node]) -> bool:
    """Collect the nodes that lead to ``value``, in order; whether all of it comes from ``x`` and from weights."""
    node = value.producer()
    if value is x or (node is None and value.const_value is not None and not value.is_graph_input()):
        return True
    if node is None or len(begun) > _MOST_NODES:
        return False
    if node not in found:
        begun.add(node)
        given = [v for v in node.inputs if v is not None]
        if not all(_search(v, x, found, begun) for v in given):
            return False
        found[node] = any(v is x or (v.producer() is not None and found[v.producer()]) for v in given)  # type: ignore[index]
    return True


def _position_wise(node: ir.Node, constants: set[ir.Value], rank: int) -> bool:
    """Whether ``node`` works on the last axis alone, whatever the others are."""
    if node.domain:
        return False
    fixed = [v for v in node.inputs if v is not None and v in constants]
    if node.op_type == "MatMul":
        right = node.inputs[1]
        return right in constants and right.shape is not None and len(right.shape) == 2
    if node.op_type in _AXES:
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else _AXES[node.op_type]
        return axis in (-1, rank - 1)
    return node.op_type in ELEMENTWISE and all(v.shape is not None and len(v.shape) <= 1 for v in fixed)
