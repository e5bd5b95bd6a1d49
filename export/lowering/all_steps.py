"""Nodes of a step written for all steps at once: time and batch stay two axes where a node does not care, else each step of a row
stands for a row.

One axis of both costs a ``Reshape`` there and one back, whose sizes have to be looked up, at every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.column_ranges import ARITHMETIC
from rnncore.export.graph.dims import dims_of, ends_of
from rnncore.export.graph.views import VIEWS
from rnncore.export.lowering.layouts import numbers_of
from rnncore.export.lowering.put_together import first_part, parts_of
from rnncore.export.lowering.steps import StepGraph

_BY_AXIS = ("Concat", "LayerNormalization", "LogSoftmax", "Softmax", "Split")
_SUMMED = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare")
_AXES = {**dict.fromkeys(_SUMMED, 1), "Slice": 3}
"""Which input says along which axes."""
_MOST_PARTS = 4
"""What is put together of more values than this is turned as a whole."""


class AllSteps:
    """The values of ``step`` over time, [time, batch, ...], or as rows, [time * batch, ...].

    weights: what stands for those.  z: what the step reads, [batch, time, n].
    """

    def __init__(self, builder: Builder, step: StepGraph, weights: Mapping[ir.Value, ir.Value], z: ir.Value) -> None:
        self._builder, self._step, self._weights, self._z = builder, step, weights, z
        self._over_time: dict[ir.Value, ir.Value] = {}
        self._rows: dict[ir.Value, ir.Value] = {}
        self._axes: ir.Value | None = None

    def put(self, value: ir.Value, over_time: ir.Value) -> None:
        """Say what stands for ``value`` of the step, [time, batch, ...]."""
        self._over_time[value] = over_time

    def over_time(self, value: ir.Value) -> ir.Value:
        """What stands for ``value`` of the step, [time, batch, ...]."""
        if value not in self._over_time:
            self._over_time[value] = self._turned(self._z) if value is self._read_first else self._unfolded(value)
        return self._over_time[value]

    def write(self, nodes: Iterable[ir.Node]) -> None:
        """Write ``nodes`` of the step, in their order."""
        for node in nodes:
            told = [value for value in node.inputs if value is not None and self._is_told(value)]
            parts = parts_of(node, self._z) if told == [self._read_first] else []
            if 0 < len(parts) <= _MOST_PARTS:
                self._over_time.update(zip(node.outputs, map(self._turned, parts), strict=True))
            elif self._rows.keys().isdisjoint(told) and (made := self._write_over_time(node, told)):
                self._over_time.update(zip(node.outputs, made, strict=True))
            else:
                known = {**self._weights, **{value: self._as_rows(value) for value in told}}
                self._step.write([node], self._builder, known)
                self._rows.update((value, known[value]) for value in node.outputs)

    @property
    def _read_first(self) -> ir.Value:
        return self._step.inputs[0]

    def _is_told(self, value: ir.Value) -> bool:
        return value is self._read_first or value in self._over_time or value in self._rows

    def _turned(self, value: ir.Value) -> ir.Value:
        return self._builder.op("Transpose", value, perm=[1, 0, 2])

    def _unfolded(self, value: ir.Value) -> ir.Value:
        if self._axes is None:
            axes = self._builder.op("Shape", first_part(self._z), start=0, end=2)
            self._axes = self._builder.op("Gather", axes, self._builder.constant([1, 0]))
        shape = self._builder.op("Concat", self._axes, self._builder.constant(_of_row(value)), axis=0)
        return self._builder.op("Reshape", self._rows[value], shape)

    def _as_rows(self, value: ir.Value) -> ir.Value:
        """What stands for ``value``, [time * batch, ...]."""
        if value not in self._rows:
            sizes = self._builder.constant([-1, *_of_row(value)])
            self._rows[value] = self._builder.op("Reshape", self.over_time(value), sizes)
        return self._rows[value]

    def _write_over_time(self, node: ir.Node, told: Sequence[ir.Value]) -> list[ir.Value]:
        """What ``node`` gives, of values [time, batch, ...]; nothing if it cannot be written so."""
        if node.op_type == "Identity":
            return [self.over_time(value) for value in told]
        if node.op_type in VIEWS and told == [node.inputs[0]] and _keeps_rows(node):
            sizes = self._builder.constant([0, 0, *_of_row(node.outputs[0])])
            return [self._builder.op("Reshape", self.over_time(told[0]), sizes)]
        attributes = _behind_an_axis_more(node, told) if told and not node.domain else None
        if attributes is None:
            return []
        inputs = [
            value if value is None else self.over_time(value) if value in told else self._weight(value)
            for value in node.inputs
        ]
        if node.op_type in _AXES:
            inputs[_AXES[node.op_type]] = self._builder.constant(_axes_from_behind(node))
        return self._builder.append(node.op_type, inputs, attributes, len(node.outputs))

    def _weight(self, value: ir.Value) -> ir.Value:
        return self._step.found(value, self._builder, self._weights)


def _of_row(value: ir.Value) -> list[int]:
    return [size for size in dims_of(value)[1:] if isinstance(size, int)]


def _keeps_rows(node: ir.Node) -> bool:
    """Whether a view leaves the first axis as it is, and the others are known."""
    before, after = ends_of(node)
    known = before[1:] + after[1:]
    return bool(before and after) and before[0] == after[0] is not None and all(isinstance(d, int) and d for d in known)


def _behind_an_axis_more(node: ir.Node, told: Sequence[ir.Value]) -> list[ir.Attr] | None:
    """The attributes with which ``node`` does the same to ``told`` with an axis more in front; None if none do."""
    own = list(node.attributes.values())
    given = [value for value in node.inputs if value is not None]
    if any(value.shape is None for value in (*given, *node.outputs)):
        return None
    rank, ranks = len(dims_of(node.outputs[0])), {len(dims_of(value)) for value in told}
    if node.op_type in ARITHMETIC:
        others = [dims_of(value) for value in given if value not in told]
        spread = all(len(dims) < rank or (len(dims) == rank and dims[0] == 1) for dims in others)
        return own if ranks == {rank} and spread else None
    if node.op_type == "MatMul":
        by_weights = told == given[:1] and len(dims_of(given[1])) == 2
        return own if by_weights or (len(told) == 2 and ranks == {rank} and rank > 2) else None
    if node.op_type in _BY_AXIS:
        axis = node.attributes.get_int("axis", 0 if node.op_type == "Split" else -1) % rank
        alike = given == list(told) if node.op_type == "Concat" else told == given[:1]
        rest = [attribute for attribute in own if attribute.name != "axis"]
        return [*rest, ir.AttrInt64("axis", axis - rank)] if axis and alike and ranks == {rank} else None
    if node.op_type in _AXES:
        axes = _axes_from_behind(node)
        return own if axes and told == given[:1] and -max(ranks) not in axes else None
    if node.op_type == "Expand":
        sizes = numbers_of(node, 1) or [0]
        return own if told == given[:1] and sizes[0] == 1 and len(sizes) == rank else None
    if node.op_type == "Transpose":
        perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else []
        return [ir.AttrInt64s("perm", [0, *(axis + 1 for axis in perm)])] if perm[:1] == [0] else None
    return None


def _axes_from_behind(node: ir.Node) -> list[int]:
    """The axes along which ``node`` goes, counted from the last; nothing if it does not say so in numbers."""
    axes, rank = numbers_of(node, _AXES[node.op_type]), len(dims_of(node.inputs[0]))
    return [axis % rank - rank for axis in axes or []]
