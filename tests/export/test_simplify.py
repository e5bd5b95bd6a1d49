"""Shorter graphs compute the same: sizes that are copied, products of any rank, Softplus of large numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.simplify import choose_by_size, copy_sizes, leave_large_to_softplus, multiply_unreshaped
from rnncore.runtime import load
from tests.export.exporting import all_nodes
from tests.export.test_graph_parts import graph, main_graph, run, value
from tests.tolerances import fixed

CLOSE = {"rtol": fixed("float32"), "atol": fixed("float32")}


def kinds(made: ir.Graph) -> list[str]:
    return [node.op_type for node in made]


def dims(*sizes: int | str) -> ir.Shape:
    return ir.Shape(sizes)


def reshaped(last: list[int], *, ends: tuple[int, int] = (0, 2), of: tuple[int | str, ...] = ("b", "t", 6)) -> ir.Graph:
    """x [b, t, 6] as [its sizes from ends[0] to ends[1], *last]."""
    builder = Builder("g", main_graph())
    x = value("x", *of)
    target = builder.op("Concat", builder.op("Shape", x, start=ends[0], end=ends[1]), builder.constant(last), axis=0)
    return graph([x], builder, [builder.op("Reshape", x, target)])


@given(batch=st.integers(0, 3), steps=st.integers(0, 4), last=st.sampled_from([[6], [2, 3], [3, 1, 2]]))
def test_sizes_at_the_same_place_are_copied(batch: int, steps: int, last: list[int]) -> None:
    made = reshaped(last)
    x = np.arange(batch * steps * 6, dtype=np.float32).reshape(batch, steps, 6)
    wanted = x.reshape(batch, steps, *last)
    copy_sizes(made)
    reshape = next(node for node in made if node.op_type == "Reshape")
    assert ir.convenience.get_const_tensor(reshape.inputs[1]).numpy().tolist() == [0, 0, *last]  # type: ignore[arg-type, union-attr]
    np.testing.assert_array_equal(run(made, x=x)[0], wanted)


@pytest.mark.parametrize(
    ("last", "ends", "of"),
    [
        ([6, 1], (1, 2), ("b", "t", 6)),  # time stands where the batch is
        ([-1], (0, 2), ("b", "t", 6)),
        ([0], (0, 2), ("b", "t", 6)),
        ([6], (0, 2), (2, 3, 6)),  # no size is free
    ],
)
def test_other_sizes_stay(last: list[int], ends: tuple[int, int], of: tuple[int | str, ...]) -> None:
    made = reshaped(last, ends=ends, of=of)
    before = [node.inputs[1] for node in made if node.op_type == "Reshape"]
    copy_sizes(made)
    assert [node.inputs[1] for node in made if node.op_type == "Reshape"] == before


def test_sizes_of_unknown_values_stay() -> None:
    made = reshaped([6])
    made.inputs[0].shape = None
    copy_sizes(made)
    assert "Concat" in kinds(made) and next(iter(made)).op_type == "Shape"
    builder = Builder("g", main_graph())
    x, asked = value("x", "b", 6), ir.Value(name="asked", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([2]))
    made = graph([x, asked], builder, [builder.op("Reshape", x, asked)])
    copy_sizes(made)
    assert next(iter(made)).inputs[1] is asked


def product(*, columns: int = 4, back: tuple[int | str, ...] = ("b", "t", 4), told: bool = False) -> ir.Graph:
    """x [b, t, 3] times a matrix [3, columns], by rows, and back."""
    builder = Builder("g", main_graph())
    x, matrix = value("x", "b", "t", 3), builder.constant(np.arange(3 * columns).reshape(3, columns), np.float32)
    flat = builder.op("Reshape", x, builder.constant([-1, 3]))
    flat.shape = dims("rows", 3)
    found = builder.op("MatMul", flat, matrix)
    found.shape = dims("rows", columns)
    sizes: list[Any] = [
        builder.constant([n])
        if isinstance(n, int)
        else builder.op("Shape", x, start="bt".index(n), end="bt".index(n) + 1)
        for n in back
    ]
    y = builder.op("Reshape", found, builder.op("Concat", *sizes, axis=0))
    y.shape = dims(*back)
    return graph([x], builder, [y, builder.op("Identity", found)] if told else [y])


@given(batch=st.integers(0, 3), steps=st.integers(0, 4), told=st.booleans())
def test_a_product_takes_any_rank(batch: int, steps: int, told: bool) -> None:
    x = np.random.default_rng(0).standard_normal((batch, steps, 3)).astype(np.float32)
    made = product(told=told)
    multiply_unreshaped(made)
    first = made.outputs[0].producer()
    assert first is not None and first.op_type == "MatMul" and first.inputs[0] is made.inputs[0]
    wanted = x @ np.arange(12, dtype=np.float32).reshape(3, 4)
    for found in run(made, x=x):  # with nothing in it the graph as it was fails, as a size of 0 is one to copy
        np.testing.assert_allclose(found, wanted.reshape(found.shape), **CLOSE)


@pytest.mark.parametrize("back", [("t", "b", 4), ("b", "t", 2, 2), ("b", 4, "t")])
def test_a_product_that_goes_elsewhere_stays(back: tuple[int | str, ...]) -> None:
    made = product(back=back)
    multiply_unreshaped(made)
    assert kinds(made).count("Reshape") == 2 and kinds(made).count("MatMul") == 1


@pytest.mark.parametrize(
    ("dtype", "bound", "dropped"),
    [("float32", 20.0, True), ("float32", 17.0, True), ("float32", 16.0, False), ("float64", 20.0, False)],
)
def test_the_choice_of_large_numbers_is_dropped_where_it_changes_nothing(
    dtype: str, bound: float, dropped: bool
) -> None:
    builder = Builder("g", main_graph())
    x = value("x", "n")
    limit = builder.constant(bound, np.dtype(dtype))
    soft = builder.op("Softplus", x)
    made = graph([x], builder, [builder.op("Where", builder.op("Greater", x, limit), x, soft)])
    leave_large_to_softplus(made)
    assert ("Where" in kinds(made)) is not dropped


@pytest.mark.parametrize("part", ["condition", "choice", "operator"])
def test_other_choices_stay(part: str) -> None:
    builder = Builder("g", main_graph())
    x, z = value("x", "n"), value("z", "n")
    asked = builder.op(
        "Less" if part == "operator" else "Greater", z if part == "condition" else x, builder.constant(20, np.float32)
    )
    made = graph([x, z], builder, [builder.op("Where", asked, z if part == "choice" else x, builder.op("Softplus", x))])
    leave_large_to_softplus(made)
    assert "Where" in kinds(made)


class Soft(nn.Module):
    """Softplus of what a GRU gives, made large."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(2, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(self.rnn(x)[0] * x.sum(-1, keepdim=True))


@pytest.mark.parametrize("form", ["loop", "portable"])
def test_softplus_of_any_number_is_torchs(tmp_path: Path, form: str) -> None:
    module = Soft().eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 5, 2), form=form)
    made = [node.op_type for node in all_nodes(onnx.load(tmp_path / "m.onnx").graph)]
    assert ("Greater" in made) is (form == "portable"), "other runtimes may overflow"
    x = torch.randn(4, 30, 2) * torch.tensor([1.0, 30.0, 1e4, 1e30])[:, None, None]
    x[0, 3, 0], x[1, 4, 1] = np.inf, np.nan
    wanted = module(x).detach().numpy()
    np.testing.assert_allclose(
        load(tmp_path / "m.onnx").run(x.numpy()), wanted, rtol=fixed("float32"), atol=fixed("float32 long")
    )


def line_or_curve(asked: str, bound: float, height: float, *, turned: bool, flipped: bool) -> ir.Graph:
    """x + height or Sigmoid(x), as x is on one side of the bound or on the other."""
    builder = Builder("g", main_graph())
    x = value("x", "n")
    number = builder.constant(height, np.float32)
    line = builder.op("Add", number, x) if flipped else builder.op("Add", x, number)
    chosen = [line, builder.op("Sigmoid", x)]
    condition = builder.op(asked, x, builder.constant(bound, np.float32))
    return graph([x], builder, [builder.op("Where", condition, *(reversed(chosen) if turned else chosen))])


@pytest.mark.parametrize("asked", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
@given(
    x=st.lists(st.floats(width=32) | st.floats(-(2**-10), 2**-10, width=32), min_size=1, max_size=8),
    flipped=st.booleans(),
)
def test_the_activation_of_min_gru_is_the_larger_of_two(asked: str, x: list[float], flipped: bool) -> None:
    given = np.array(x, np.float32)
    wanted = run(line_or_curve(asked, 0.0, 0.5, turned=asked.startswith("Less"), flipped=flipped), x=given)[0]
    made = line_or_curve(asked, 0.0, 0.5, turned=asked.startswith("Less"), flipped=flipped)
    choose_by_size(made)
    assert "Where" not in kinds(made)
    np.testing.assert_allclose(run(made, x=given)[0], wanted, **CLOSE)  # both meet in 0: the last bit may differ


@pytest.mark.parametrize(
    ("asked", "bound", "height", "turned"),
    [
        ("Greater", 0.0, 0.5, True),  # the smaller of both
        ("Less", 0.0, 0.5, False),
        ("Greater", 0.1, 0.5, False),
        ("Greater", 0.0, 0.4, False),
        ("Equal", 0.0, 0.5, False),
    ],
)
def test_other_lines_and_curves_stay(asked: str, bound: float, height: float, turned: bool) -> None:
    made = line_or_curve(asked, bound, height, turned=turned, flipped=False)
    choose_by_size(made)
    assert "Where" in kinds(made)
