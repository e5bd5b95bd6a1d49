"""One recurrent call as values of the main graph: what every form of the loop is written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from rnncore.cells import Cell
from rnncore.export.loops.builder import Builder
from rnncore.export.loops.steps import StepGraph


@dataclass
class Recurrence:
    """What one recurrent call is made of, as values of the main graph.

    name: of the call, for messages.  owner: path of the cell, prefix of its weights.  x is [batch, time, input size];
    z is [batch, time, z size]; states are [batch, size]; valid is boolean [batch, time, 1] or None.
    copies: where weights are to be copied for packing, see :func:`rnncore.export.loops.forms.write_recurrence`.
    """

    name: str
    owner: str
    cell: Cell
    x: ir.Value
    step: StepGraph | None
    hoisted: dict[ir.Value, ir.Value]
    z: ir.Value
    states: Sequence[ir.Value]
    dtype: ir.DataType
    reverse: bool
    valid: ir.Value | None = None
    copies: Builder | None = None

    def packed(self, copies: Builder) -> Recurrence:
        """The same, with weights of matrix products copied in ``copies``, the graph around the loop."""
        return replace(self, copies=copies)

    @property
    def matrix_size(self) -> int:
        """Numbers in the matrices that every step multiplies with."""
        assert self.step is not None
        return sum(int(np.prod(weight.shape.numpy())) for weight in self.step.matrices() if weight.shape is not None)

    def take_step(
        self, builder: Builder, z_t: ir.Value, states: Sequence[ir.Value], keep: ir.Value | None
    ) -> list[ir.Value]:
        """One step written into ``builder``: [y_t, *states], states held where ``keep`` [batch, 1] is False."""
        assert self.step is not None  # only the fused form goes without
        y, *new = self.step.emit(builder, (z_t, *states), self.hoisted, self.copies)
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
