"""One recurrent call as values of the main graph: what every form of the loop is written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from rnncore.cells import Cell
from rnncore.cells.base import state_shape
from rnncore.export.gate_splitting.gate_split import GateSplit, WeightSlices
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.column_ranges import ColumnRange, split, width_of
from rnncore.export.lowering.projection import Projection
from rnncore.export.lowering.steps import StepGraph
from rnncore.export.tracing.rolling.cell import RolledCell

RowSpec = tuple[ir.DataType, tuple[int, ...]]


@dataclass
class Recurrence:
    """What one recurrent call is made of, as values of the main graph.

    name: of the call, for messages.  owner: path of the cell, prefix of its weights.  x is [batch, time, input size];
    z is [batch, time, z size]; states are [batch, size]; valid is boolean or None, [batch, time, 1] or [time, batch, 1].
    projection: how z comes from x, None where that is not to be moved.  lean: whether products may be cut by gate.
    weights: those of the step, by their values in its graph.  columns: how the step is cut.  pieces: parts of weights.
    copied: whether every loop body holds its own copies of weights.
    along: what a step reads over time, time being the axis ``time_axis``: z, whole or in parts, made by :meth:`over_time`.
    read: dtype and shape of each for one row.  carried: which states of the cell the loop carries, None for all.
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
    captured: Sequence[ir.Value] = ()
    along: list[ir.Value] = field(default_factory=list)
    read: list[RowSpec] = field(default_factory=list)
    time_axis: int = 1
    carried: Sequence[int] | None = None
    columns: GateSplit | None = None
    pieces: WeightSlices = field(default_factory=dict)
    copied: bool = False

    @property
    def matrix_size(self) -> int:
        """Numbers in the matrices that every step multiplies with."""
        assert self.step is not None
        return sum(int(np.prod(weight.shape.numpy())) for weight in self.step.matrices() if weight.shape is not None)

    def ways_to_cut(self, *, join: bool) -> GateSplit | None:
        """The step by parts of z, see :class:`GateSplit`; None if it is not to be cut, or cannot be."""
        assert self.step is not None
        return self.step.columns(join=join) if self.lean else None

    def over_time(self, builder: Builder, columns: GateSplit | None, *, time_first: bool) -> Recurrence:
        """The same, with z made ready for a loop in the graph of ``builder``.

        columns: what :meth:`ways_to_cut` gave.  time_first: put that axis first, where z can be made so.
        """
        assert self.z.shape is not None and self.x.shape is not None
        size = int(self.z.shape[2])  # type: ignore[arg-type]
        parts: list[ColumnRange] = [((0, size),)] if columns is None else columns.parts
        batch, time = axes = self.x.shape[:2]
        if self.projection is None:
            along, time_first = split(builder, self.z, parts, size, 2), False
        elif not time_first:
            along = self.projection.emit(builder, self.x, parts, copy=True)
        else:
            along, axes = self._time_first(builder, self.projection, parts), (time, batch)
        widths = [width_of(part) for part in parts]
        for value, width in zip(along, widths, strict=True):
            # Said, where it cannot be inferred: onnxruntime writes a result over an argument only if their shapes are equal.
            if value is not self.z:
                value.type, value.shape = ir.TensorType(self.dtype), ir.Shape([*axes, width])
        read: list[RowSpec] = [(self.dtype, (width,)) for width in widths]
        return replace(self, along=along, read=read, time_axis=int(not time_first), columns=columns)

    def _time_first(self, builder: Builder, projection: Projection, parts: Sequence[ColumnRange]) -> list[ir.Value]:
        x = builder.op("Transpose", self.x, perm=[1, 0, 2])
        # Rows and steps as one axis: on two axes onnxruntime adds a bias in the pass of the product itself.
        flat = builder.op("Reshape", x, builder.constant([-1, self.cell.input_size]))
        axes = builder.op("Shape", x, start=0, end=2)
        return [
            builder.op("Reshape", z, builder.op("Concat", axes, builder.constant([width_of(part)]), axis=0))
            for z, part in zip(projection.emit(builder, flat, parts, copy=True), parts, strict=True)
        ]

    def unpacked(self, outside: Builder) -> Recurrence:
        """The same, with its weights as they are; parts of them are written in ``outside``, the main graph."""
        return replace(self, pieces=self._pieces(outside))

    def packed(self) -> Recurrence:
        """The same, with copies of its weights in the body of the loop, so that onnxruntime packs them."""
        return replace(self, copied=True)

    def _pieces(self, builder: Builder) -> WeightSlices:
        return {} if self.columns is None else self.columns.emit_pieces(builder, self.weights)

    def single_z(self, builder: Builder) -> ir.Value:
        """z [batch, z size] of the only step that there is, by its projection."""
        assert self.projection is not None
        return self.projection.emit(builder, builder.op("Squeeze", self.x, builder.constant([1])), [], copy=False)[0]

    def take_step(
        self, builder: Builder, z_t: Sequence[ir.Value], states: Sequence[ir.Value], keep: ir.Value | None
    ) -> list[ir.Value]:
        """One step written into ``builder``: [*results, *states], states held where ``keep`` [batch, 1] is False."""
        assert self.step is not None  # only the fused form goes without
        weights, pieces = self.weights, self.pieces
        if self.copied:
            weights, pieces = self.step.emit_copies(builder, weights, self.columns), self._pieces(builder)
        found = self.step.emit(builder, z_t, [*states, *self.captured], weights, self.columns, pieces)
        results, new = found[: -len(states)], found[-len(states) :]
        if keep is not None:
            keeps = [_as_wide(builder, keep, len(shape)) for shape in self._state_shapes]
            held = [builder.op("Where", k, value, old) for k, value, old in zip(keeps, new, states, strict=True)]
            if self.carried is not None:  # whose results are its states, which others start from
                results = [held[new.index(value)] if value in new else value for value in results]
            new = held
        return told_apart(builder, results, new)

    def state_inputs(self, builder: Builder) -> list[ir.Value]:
        """Typed inputs of a loop body for the states."""
        return [builder.input("state", self.dtype, ("batch", *shape)) for shape in self._state_shapes]

    def read_inputs(self, builder: Builder) -> list[ir.Value]:
        """Typed inputs of a body that is handed what a step reads."""
        return [builder.input("z", dtype, ("batch", *shape)) for dtype, shape in self.read]

    @property
    def _state_shapes(self) -> list[tuple[int | None, ...]]:
        """Of the states that the loop carries, without the batch; None where a size follows the inputs."""
        shapes: list[list[int | None]] = [list(state_shape(size)) for size in self.cell.state_sizes.values()]
        for shape, free in zip(
            shapes, self.cell.free_state_axes if isinstance(self.cell, RolledCell) else (), strict=False
        ):
            for axis in free:
                shape[axis - 1] = None
        return [tuple(shapes[i]) for i in (range(len(shapes)) if self.carried is None else self.carried)]


def told_apart(builder: Builder, results: Sequence[ir.Value], states: Sequence[ir.Value]) -> list[ir.Value]:
    """[*results, *states], each another value that ``builder`` has made.

    A graph cannot list one value twice among its outputs, nor one that is not its own.  The checker lets the former pass, and
    then onnxruntime 1.32 gives other numbers at every run, for some cells.
    """
    free = {value for node in builder.nodes for value in node.outputs}
    apart = []
    for value in (*states, *results):
        apart.append(value if value in free else builder.op("Identity", value))
        free.discard(value)
    return [*apart[len(states) :], *apart[: len(states)]]


def _as_wide(builder: Builder, keep: ir.Value, axes: int) -> ir.Value:
    """keep [batch, 1] with ``axes`` axes behind the first."""
    return keep if axes == 1 else builder.op("Unsqueeze", keep, builder.constant(list(range(2, axes + 1))))
