"""One recurrent call as values of the main graph: what every form of the loop is written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from rnncore.cells import Cell
from rnncore.export.loops.builder import Builder
from rnncore.export.loops.columns import Pieces, Range, split
from rnncore.export.loops.projection import Projection
from rnncore.export.loops.steps import StepGraph


@dataclass
class Recurrence:
    """What one recurrent call is made of, as values of the main graph.

    name: of the call, for messages.  owner: path of the cell, prefix of its weights.  x is [batch, time, input size];
    z is [batch, time, z size]; states are [batch, size]; valid is boolean or None, [batch, time, 1] or [time, batch, 1].
    projection: how z comes from x, None where that is not to be moved.  lean: whether products may be cut by gate.
    weights: those of the step, by their values in its graph.  pieces: parts of them, see :attr:`StepGraph.columns`.
    along: z over time, whole or in parts of these ``widths``, time being the axis ``time_axis``: made by :meth:`over_time`.
    """

    name: str
    owner: str
    cell: Cell
    x: ir.Value
    step: StepGraph | None
    weights: Mapping[ir.Value, ir.Value]
    z: ir.Value
    states: Sequence[ir.Value]
    dtype: ir.DataType
    reverse: bool
    projection: Projection | None = None
    lean: bool = False
    valid: ir.Value | None = None
    along: list[ir.Value] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    time_axis: int = 1
    pieces: Pieces = field(default_factory=dict)

    @property
    def by_parts(self) -> bool:
        """Whether a step takes z in parts."""
        return len(self.along) > 1

    @property
    def matrix_size(self) -> int:
        """Numbers in the matrices that every step multiplies with."""
        assert self.step is not None
        return sum(int(np.prod(weight.shape.numpy())) for weight in self.step.matrices() if weight.shape is not None)

    def over_time(self, builder: Builder, *, by_parts: bool, time_first: bool) -> Recurrence:
        """The same, with z made ready for a loop in the graph of ``builder``.

        by_parts: cut products by gate, where the step can be.  time_first: put that axis first, where z can be made so.
        """
        assert self.step is not None and self.z.shape is not None and self.x.shape is not None
        columns = self.step.columns if by_parts and self.lean else None
        parts = [(0, int(self.z.shape[2]))] if columns is None else columns.parts  # type: ignore[arg-type]
        batch, time = axes = self.x.shape[:2]
        if self.projection is None:
            along, time_first = split(builder, self.z, parts, parts[-1][1], 2), False
        elif not time_first:
            along = self.projection.emit(builder, self.x, parts, copy=True)
        else:
            along, axes = self._time_first(builder, self.projection, parts), (time, batch)
        widths = [last - first for first, last in parts]
        for value, width in zip(along, widths, strict=True):
            # Said, where it cannot be inferred: onnxruntime writes a result over an argument only if their shapes are equal.
            if value is not self.z:
                value.type, value.shape = ir.TensorType(self.dtype), ir.Shape([*axes, width])
        return replace(self, along=along, widths=widths, time_axis=int(not time_first))

    def _time_first(self, builder: Builder, projection: Projection, parts: Sequence[Range]) -> list[ir.Value]:
        x = builder.op("Transpose", self.x, perm=[1, 0, 2])
        # Rows and steps as one axis: on two axes onnxruntime adds a bias in the pass of the product itself.
        flat = builder.op("Reshape", x, builder.constant([-1, self.cell.input_size]))
        axes = builder.op("Shape", x, start=0, end=2)
        return [
            builder.op("Reshape", z, builder.op("Concat", axes, builder.constant([last - first]), axis=0))
            for z, (first, last) in zip(projection.emit(builder, flat, parts, copy=True), parts, strict=True)
        ]

    def unpacked(self, outside: Builder) -> Recurrence:
        """The same, with its weights as they are; parts of them are written in ``outside``, the main graph."""
        return replace(self, pieces=self._pieces(outside))

    def packed(self, copies: Builder) -> Recurrence:
        """The same, with copies of its weights in ``copies``, the graph around the loop, so that onnxruntime packs them."""
        assert self.step is not None
        weights = self.step.emit_copies(copies, self.weights, by_parts=self.by_parts)
        return replace(self, weights=weights, pieces=self._pieces(copies))

    def _pieces(self, builder: Builder) -> Pieces:
        if not self.by_parts:
            return {}
        assert self.step is not None and self.step.columns is not None
        return self.step.columns.emit_pieces(builder, self.weights)

    def single_z(self, builder: Builder) -> ir.Value:
        """z [batch, z size] of the only step that there is."""
        axis = builder.constant([1])
        if self.projection is None:
            return builder.op("Squeeze", self.z, axis)
        return self.projection.emit(builder, builder.op("Squeeze", self.x, axis), [], copy=False)[0]

    def take_step(
        self, builder: Builder, z_t: Sequence[ir.Value], states: Sequence[ir.Value], keep: ir.Value | None
    ) -> list[ir.Value]:
        """One step written into ``builder``: [y_t, *states], states held where ``keep`` [batch, 1] is False."""
        assert self.step is not None  # only the fused form goes without
        y, *new = self.step.emit(builder, z_t, states, self.weights, self.pieces)
        if keep is not None:
            new = [builder.op("Where", keep, value, old) for value, old in zip(new, states, strict=True)]
        # A graph cannot list one value twice among its outputs, nor one that is not its own.
        seen: set[ir.Value] = set()
        results = []
        for value in (*new, y):
            results.append(builder.op("Identity", value) if value in seen or value in states else value)
            seen.add(value)
        return [results[-1], *results[:-1]]

    def state_inputs(self, builder: Builder) -> list[ir.Value]:
        """Typed inputs of a loop body for the states."""
        return [builder.input("state", self.dtype, ("batch", size)) for size in self.cell.state_sizes.values()]
