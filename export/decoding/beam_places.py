"""Where a beam search in a graph keeps its sequences."""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.graph.builder import Builder


class Places:
    """As many for each row of the batch as the largest beam of any of them needs, row after row.

    All values lie outside of the loop.  batch: int64 [1], number of rows.  rows: int64 [batch], 0, 1, ...  width: int64
    scalar, places of a row.  row: int64 [places], that of each place.  first, within: boolean [places, 1], whether a place
    is the first of its row, and whether the row's own beam reaches it.

    Args:
        builder: of the graph around the loop.
        lengths: int64 [batch].
        beam: int64 [batch] or [1]; less than 1 counts as 1.
    """

    def __init__(self, builder: Builder, lengths: ir.Value, beam: ir.Value) -> None:
        zero, one = builder.constant(0), builder.constant(1)
        self._builder = builder
        self.batch = builder.op("Shape", lengths)
        beam = builder.op("Max", beam, one)
        self.width = builder.op("ReduceMax", beam, keepdims=0)
        count = builder.op("Squeeze", self.batch)
        places = builder.op("Range", zero, builder.op("Mul", count, self.width), one)
        self.rows = builder.op("Range", zero, count, one)
        self.row = builder.op("Div", places, self.width)
        rank = builder.op("Unsqueeze", builder.op("Mod", places, self.width), builder.constant([1]))
        self.first = builder.op("Equal", rank, zero)
        self.within = builder.op("Less", rank, self.column(beam))

    def spread(self, value: ir.Value) -> ir.Value:
        """[batch, ...] to [places, ...]."""
        return self._builder.op("Gather", value, self.row, axis=0)

    def column(self, value: ir.Value) -> ir.Value:
        """[batch] or [1] to [places, 1]."""
        builder = self._builder
        return builder.op("Unsqueeze", self.spread(builder.op("Expand", value, self.batch)), builder.constant([1]))

    def best(self, value: ir.Value) -> ir.Value:
        """[places, ...] to [batch, ...]."""
        return self._builder.op("Gather", value, self._builder.op("Mul", self.rows, self.width), axis=0)

    def apart(self, value: ir.Value) -> ir.Value:
        """[places, n] to [batch, beam, n]; n is not 0."""
        builder = self._builder
        width = builder.op("Unsqueeze", self.width, builder.constant([0]))
        return builder.op("Reshape", value, builder.op("Concat", self.batch, width, builder.constant([-1]), axis=0))
