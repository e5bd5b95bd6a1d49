"""``quantize="int8"``: every large product with a constant weight, in the main graph and inside loops, and every table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.replace import drop_shortcuts, put_in_place
from rnncore.export.int8.constant_values import ConstantValues
from rnncore.export.int8.nodes import (
    TABLE_LEVELS,
    Array,
    Rounded,
    Weight,
    look_up,
    look_up_column,
    multiply,
    round_columns,
    round_fixed,
    round_rows,
    stored,
)
from rnncore.export.int8.ranges import Range, Ranges
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.signature import StateSpec

SMALLEST = 1024
"""Weights of fewer numbers stay float32: rounding them saves at most 3 KB, and their rounding costs more time than they do."""


@dataclass(frozen=True)
class Quantized:
    """What the pass did: weights of products and tables turned into int8, and small weights left as they were."""

    weights: int
    tables: int
    left: int

    def __str__(self) -> str:
        tables = f" and {self.tables} tables" if self.tables else ""
        left = f", {self.left} small ones left in float32" if self.left else ""
        return f"{self.weights} weights{tables} in int8{left}"


def quantize_int8(model: ir.Model, states: Sequence[StateSpec]) -> Quantized:
    """Turn products and tables of a finished ``model`` into int8, in place.

    A product is a ``MatMul`` or ``Gemm`` whose second factor depends on weights only; a table is the constant that a
    ``Gather`` looks rows up in.  Convolutions and products of two activations (attention) stay float32, and so do
    weights with fewer than :data:`SMALLEST` numbers.

    Inside a loop an activation that is proved to be bounded, such as the h = o * tanh(c) of an LSTM, gets a fixed scale;
    everything else gets a scale for each row, see :mod:`rnncore.export.int8.nodes`.

    Raises:
        ExportError: there is nothing to quantize.
    """
    graph = model.graph
    drop_shortcuts(graph)
    done = _Pass(graph, Ranges(graph, _carried(graph, states))).run()
    if not done.weights + done.tables:
        raise ExportError(
            f"quantize='int8' found no matrix product with a constant weight of at least {SMALLEST} numbers: there is "
            "nothing to gain, leave it out"
        )
    RemoveUnusedNodesPass()(model)
    return done


def _carried(graph: ir.Graph, states: Sequence[StateSpec]) -> dict[ir.Value, tuple[Range, ir.Value]]:
    """State inputs, what streams start them with, and the outputs that feed them."""
    inputs, outputs = ({str(v.name): v for v in values} for values in (graph.inputs, graph.outputs))
    carried = {}
    for state in states:
        start = state.initial_value()
        known = Range(float(start.min()), float(start.max())) if start.size and np.isfinite(start).all() else Range()
        carried[inputs[state.name]] = (known, outputs[state.output])
    return carried


class _Pass:
    def __init__(self, graph: ir.Graph, ranges: Ranges) -> None:
        self._graph = graph
        self._ranges = ranges
        self._constants = ConstantValues()
        self._rounded: dict[tuple[ir.Graph, ir.Value], Rounded] = {}
        self._weights: dict[tuple[ir.Value, bool], Weight] = {}
        self._copies: dict[ir.Value, ir.Value] = {}
        self._left: set[ir.Value] = set()

    def run(self) -> Quantized:
        # Products first: a table that is also a weight (tied embeddings) then shares its numbers.
        for node in _nodes(self._graph):
            self._quantize_product(node)
        tables = [node for node in _nodes(self._graph) if self._quantize_table(node)]
        return Quantized(len(self._weights), len(tables), len(self._left))

    def _quantize_product(self, node: ir.Node) -> None:
        if node.op_type not in ("MatMul", "Gemm") or node.domain or _flag(node, "transA"):
            return
        x, value = node.inputs[0], node.inputs[1]
        weight = self._constants.of(value)
        if x is None or value is None or weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            return
        if self._constants.of(x) is not None:
            return  # a constant as a whole, which onnxruntime computes once
        if weight.size < SMALLEST:
            self._left.add(_original(value))
            return
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        builder = Builder(str(node.name), self._graph)
        rounded = self._round(builder, graph, x)
        y = multiply(builder, rounded, self._weight(value, weight, _flag(node, "transB")), _number(node, "alpha"))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            y = builder.op("Add", y, self._scaled(builder, node.inputs[2], _number(node, "beta")))
        _replace(graph, node, builder, y)

    def _weight(self, value: ir.Value, array: Array, transposed: bool) -> Weight:
        """``value``, which is ``array``, in int8, seen from where it is used."""
        copy, original = value.producer(), _original(value)
        if copy is not None and original is not value:
            # A copy in the graph around a loop, so that onnxruntime packs the weight in advance: int8 needs it too.
            weight = self._weight(original, array, transposed)
            if value not in self._copies:
                assert isinstance(copy.graph, ir.Graph)
                builder = Builder(f"{copy.name}/int8", self._graph)
                self._copies[value] = builder.op("Flatten", weight.q, axis=1)
                copy.graph.insert_before(copy, builder.nodes)
            return replace(weight, q=self._copies[value])
        key = (value, transposed)
        if key not in self._weights:
            q, scale = round_columns(array.T if transposed else array)
            name = f"{value.name}{'.T' * transposed}.int8"
            self._weights[key] = Weight(name, stored(self._graph, name, q), scale)
        return self._weights[key]

    def _round(self, builder: Builder, graph: ir.Graph, x: ir.Value) -> Rounded:
        """``x`` rounded, once for all products in ``graph`` that share it."""
        if (graph, x) not in self._rounded:
            known = self._ranges.of(x)
            inside = graph is not self._graph
            self._rounded[graph, x] = (
                round_fixed(builder, x, known) if inside and known.bounded else round_rows(builder, x)
            )
        return self._rounded[graph, x]

    @staticmethod
    def _scaled(builder: Builder, value: ir.Value, factor: float) -> ir.Value:
        return value if factor == 1.0 else builder.op("Mul", value, builder.constant(factor, np.float32))

    def _quantize_table(self, node: ir.Node) -> bool:
        if node.op_type != "Gather" or node.domain or _flag(node, "axis"):
            return False
        table, ids = node.inputs
        if table is None or ids is None or self._constants.of(ids) is not None:
            return False
        array = self._constants.of(table)
        if array is None or array.ndim != 2 or array.dtype != np.float32 or array.size < SMALLEST:
            return False
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        builder = Builder(str(node.name), self._graph)
        shared = self._weight_equal_to(array.T)
        if shared is not None and ids.shape is not None:
            scale = stored(self._graph, f"{table.name}.scale", shared.scale[:, None])
            y = look_up_column(builder, ids, len(ids.shape), shared.q, scale)
        else:
            rows, row_scale = round_columns(array.T, TABLE_LEVELS)
            q = stored(self._graph, f"{table.name}.int8", np.ascontiguousarray(rows.T))
            y = look_up(builder, ids, q, stored(self._graph, f"{table.name}.scale", row_scale[:, None]))
        _replace(graph, node, builder, y)
        return True

    def _weight_equal_to(self, array: Array) -> Weight | None:
        """The weight of a product that was made from the same numbers as ``array``."""
        q, scale = round_columns(array)
        for known in self._weights.values():
            assert known.q.const_value is not None
            if np.array_equal(known.scale, scale) and np.array_equal(known.q.const_value.numpy(), q):
                return known
        return None


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    return iter(list(ir.traversal.RecursiveGraphIterator(graph)))


def _original(value: ir.Value) -> ir.Value:
    """The matrix that ``value`` is a copy of, see :func:`rnncore.export.lowering.forms.write_recurrence`."""
    node = value.producer()
    if node is None or node.op_type != "Flatten" or node.inputs[0] is None:
        return value
    return node.inputs[0]


def _flag(node: ir.Node, name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and attribute.as_int() != 0


def _number(node: ir.Node, name: str) -> float:
    attribute = node.attributes.get(name)
    return 1.0 if attribute is None else attribute.as_float()


def _replace(graph: ir.Graph, node: ir.Node, builder: Builder, y: ir.Value) -> None:
    """``node`` by the nodes of ``builder``, its output by ``y``."""
    graph.insert_before(node, builder.nodes)
    put_in_place(node.outputs[0], y)
    graph.remove(node, safe=True)
