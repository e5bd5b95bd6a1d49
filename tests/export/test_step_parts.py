"""Steps of cells as graphs: what is cut out of one trace, written into another graph, and refused with the cell's name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore.cells import Cell
from rnncore.export.graph.builder import Builder
from rnncore.export.lowering.recurrence import Recurrence, _as_wide
from rnncore.export.lowering.steps import StepGraph, export_steps
from rnncore.export.tracing.recorder import Call
from rnncore.layers import Recurrent
from rnncore.runtime.errors import ExportError
from tests.export.test_graph_parts import graph, main_graph, run, value
from tests.tolerances import fixed

INPUT, HIDDEN, ROWS = 3, 5, 2


class Clipped(Cell):
    """h = min(W h + z, 1), a node with an input left out; the weight is made of two, which depends on no input."""

    def __init__(self, **states: Any) -> None:
        super().__init__(INPUT, HIDDEN, {"h": HIDDEN, **states})
        self.first, self.second = nn.Parameter(torch.randn(HIDDEN, HIDDEN)), nn.Parameter(torch.randn(HIDDEN))

    def project(self, x: Tensor) -> Tensor:
        return torch.cat([x, x[..., :2]], -1)

    def step(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = (h @ (self.first * self.second) + z).clamp(max=1.0)
        return h, h


def calls(*cells: Cell) -> list[Call]:
    sizes = [cell.project(torch.zeros(1, INPUT)).shape[-1] for cell in cells]
    return [
        Call(f"net.{i}", Recurrent(cell), size, False, False)
        for i, (cell, size) in enumerate(zip(cells, sizes, strict=True))
    ]


def test_steps_of_one_trace_are_those_of_their_cells() -> None:
    torch.manual_seed(0)
    cells = (rnncore.LSTMCell(INPUT, HIDDEN), Clipped())
    asked = calls(*cells)
    found = export_steps([*asked, asked[0]])
    assert list(found) == list(cells), "each cell once, in order"
    for number, cell in enumerate(cells):
        step = found[cell]
        assert step.owner == f"net.{number}.cell"
        assert len(step.inputs) == len(step.outputs) == 1 + len(cell.state_sizes)
    for cell in cells:
        step, builder = found[cell], Builder("layer", main_graph())
        z_size = cell.project(torch.zeros(1, INPUT)).shape[-1]
        z, states = value("z", ROWS, z_size), [value(name, ROWS, n) for name, n in cell.state_sizes.items()]
        results = step.emit(builder, [z], states, step.emit_hoisted(builder), None, {})
        made = graph([z, *states], builder, results)
        assert all(name.startswith((f"{step.owner}.", "const/")) for name in made.initializers)
        arguments = [torch.randn(ROWS, z_size), *(torch.randn(ROWS, n) for n in cell.state_sizes.values())]
        got = run(made, **{v.name: a.numpy() for v, a in zip((z, *states), arguments, strict=True)})
        with torch.no_grad():
            for have, want in zip(got, cell.step(*arguments), strict=True):
                np.testing.assert_allclose(have, want, atol=fixed("float32"))


class Wrong(Clipped):
    """Gives whatever it is told to."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def step(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "one":
            return h  # type: ignore[return-value]
        if self.kind == "three":
            return h, h, h  # type: ignore[return-value]
        if self.kind == "wide y":
            return torch.cat([h, h], 1), h
        if self.kind == "wide h":
            return h, torch.cat([h, h], 1)
        return h, h * torch.cond(h.sum() > 0, lambda a: a + 1, lambda a: a - 1, (z.sum(),))


WRONG = {
    "one": "Wrong.step must return (y, h), a tuple of 2 tensors",
    "three": "Wrong.step must return (y, h), a tuple of 2 tensors",
    "wide y": "Wrong.step gives y of shape [batch, 10], expected [batch, 5]",
    "wide h": "Wrong.step gives h of shape [batch, 10], expected [batch, 5]",
    "branches": "the step of net.0.cell contains control flow (If); write it with torch.where",
}


@pytest.mark.parametrize("kind", WRONG)
def test_steps_that_no_graph_can_be_made_of_name_their_cell(kind: str) -> None:
    with pytest.raises(ExportError, match=re.escape(WRONG[kind])):
        export_steps(calls(Wrong(kind)))


def test_a_value_from_nowhere_is_refused_by_name() -> None:
    z, lost = value("z", ROWS, HIDDEN), value("lost", ROWS, HIDDEN)
    step = StepGraph("net.cell", [z], [lost], [], [])
    with pytest.raises(
        ExportError, match=r"^the step of net\.cell uses a value that is neither its input nor a weight: lost$"
    ):
        step.emit(Builder("layer", main_graph()), [z], [], {}, None, {})


def test_states_of_any_rank_are_held_where_a_row_has_ended() -> None:
    """As wide as the state is: keep [batch, 1] in front of [batch, 4], [batch, 4, 5] and [batch, 4, 5, 6]."""
    for rank in (1, 2, 3):
        builder = Builder("layer", main_graph())
        keep = ir.Value(name="keep", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([ROWS, 1]))
        sizes = [4, 5, 6][:rank]
        new, old = value("new", ROWS, *sizes), value("old", ROWS, *sizes)
        wide = _as_wide(builder, keep, rank)
        assert (wide is keep) == (rank == 1)
        made = graph([keep, new, old], builder, [builder.op("Where", wide, new, old)])
        made.extend(builder.nodes[-1:])
        (got,) = run(
            made,
            keep=np.array([[True], [False]]),
            new=np.ones((ROWS, *sizes), np.float32),
            old=np.zeros((ROWS, *sizes), np.float32),
        )
        assert got.shape == (ROWS, *sizes) and got[0].all() and not got[1].any()


class Matrix(Clipped):
    """A state that is a matrix."""

    def step(self, z: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        m = m + h[:, None] * 2
        return z + m.sum(1), h + 1, m


def test_a_step_holds_the_states_of_rows_that_have_ended_and_gives_no_value_twice() -> None:
    cell = Matrix(m=(2, HIDDEN))
    step = export_steps(calls(cell))[cell]
    builder = Builder("layer", main_graph())
    z, h, m = value("z", ROWS, HIDDEN), value("h", ROWS, HIDDEN), value("m", ROWS, 2, HIDDEN)
    keep = ir.Value(name="keep", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([ROWS, 1]))
    rec = Recurrence(
        "net.0", "net.0.cell", cell, z, step, step.emit_hoisted(builder), z, [h, m], ir.DataType.FLOAT, False
    )
    results = rec.take_step(builder, [z], [h, m], keep)
    assert len({id(result) for result in results}) == 3
    made = graph([z, h, m, keep], builder, results)
    arguments = [torch.randn(ROWS, HIDDEN), torch.randn(ROWS, HIDDEN), torch.randn(ROWS, 2, HIDDEN)]
    y, h_next, m_next = run(
        made,
        **{name: value.numpy() for name, value in zip("zhm", arguments, strict=True)},
        keep=np.array([[True], [False]]),
    )
    wanted = [one.numpy() for one in cell.step(*arguments)]
    np.testing.assert_allclose(y, wanted[0], atol=fixed("float32"))
    for got, new, old in ((h_next, wanted[1], arguments[1]), (m_next, wanted[2], arguments[2])):
        np.testing.assert_allclose(got[0], new[0], atol=fixed("float32"))
        np.testing.assert_array_equal(got[1], old[1].numpy())
