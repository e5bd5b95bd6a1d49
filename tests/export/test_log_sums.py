"""``logcumsumexp`` over time is written without a loop over time; whole, ragged and in chunks it is torch's."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import rnncore
from rnncore.export import export
from rnncore.export.lowering.log_sums import is_log_sum
from rnncore.runtime import Model, load
from tests.export.exporting import all_nodes
from tests.tolerances import fixed

SIZE = 3
EXACT = {"rtol": fixed("float64"), "atol": fixed("float64")}


class LogSums(nn.Module):
    """A gate of exponentials, which are far apart, and what they sum to."""

    def forward(self, x: Tensor) -> Tensor:
        return (20 * x).logcumsumexp(1)


@pytest.fixture(scope="module", params=["loop", "scan"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("sums") / "m.onnx"
    report = export(LogSums(), path, torch.randn(2, 5, SIZE), form=request.param)
    assert report.causal and report.signature.lengths is not None
    kinds = [node.op_type for node in all_nodes(onnx.load(path).graph)]
    assert kinds.count("Loop") == 1 and "Scan" not in kinds and "Exp" in kinds
    return load(path)


UNUSUAL = st.sampled_from([-math.inf, math.inf, math.nan, 1e38, -1e38, 0.0])


@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=4),
    unusual=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 69), st.integers(0, SIZE - 1), UNUSUAL), max_size=3),
    cuts=st.lists(st.integers(0, 70), max_size=4),
    scale=st.sampled_from(
        [1.0, 40.0]
    ),  # float64 holds exponentials of the first beside one another, and not of the second
    seed=st.integers(0, 99),
)
def test_sums_are_torchs(
    model: Model,
    lengths: list[int],
    unusual: list[tuple[int, int, int, float]],
    cuts: list[int],
    scale: float,
    seed: int,
) -> None:
    x = np.random.default_rng(seed).standard_normal((len(lengths), 70, SIZE)).astype(np.float32) * np.float32(scale)
    for row, t, column, value in unusual:
        x[row % len(lengths), t, column] = value / 20
    together = model.run(x, lengths=lengths)
    for row, (own, length) in enumerate(zip(x, lengths, strict=True)):
        assert not together[row, length:].any()
        if length == 0:
            continue
        wanted = LogSums()(torch.from_numpy(own[None, :length]))[0].numpy()
        ends = sorted({min(cut, length) for cut in cuts} | {0, length})
        with model.stream() as stream:
            parts = [stream.push(own[start:end]) for start, end in pairwise(ends)]
        for found in (together[row, :length], model.run(own[None, :length])[0], np.concatenate(parts)):
            np.testing.assert_allclose(found, wanted, rtol=fixed("float32"), atol=fixed("float32 long"))


def test_of_numbers_that_are_all_nothing_the_sum_is_nothing(model: Model) -> None:
    nothing = np.full((1, 9, SIZE), -np.inf, np.float32)
    np.testing.assert_array_equal(model.run(nothing), nothing)


class Like(rnncore.Cell):
    """Nearly such a sum, or just such a one."""

    def __init__(self, kind: str) -> None:
        super().__init__(SIZE, SIZE, {"h": SIZE, "k": SIZE} if kind == "two states" else {"h": SIZE})
        self.kind = kind
        if kind == "weights":
            self.weight = nn.Parameter(torch.ones(SIZE))

    def step(self, z: Tensor, h: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        y = torch.logaddexp(z, h).clamp(min=torch.finfo(z.dtype).min)
        if self.kind == "largest":
            y = torch.maximum(z, h)
        if self.kind == "half":
            y = torch.logaddexp(z, h - 0.01)
        if self.kind == "other answer":
            return y + 1, y
        return (y, y, *more)


@pytest.mark.parametrize("kind", ["sum", "largest", "half", "other answer", "two states", "weights"])
def test_only_such_sums_are_taken_for_them(kind: str) -> None:
    assert is_log_sum(Like(kind)) == (kind == "sum")
    assert not is_log_sum(rnncore.GRUCell(SIZE, SIZE))


def test_without_branches_it_is_a_loop_over_the_steps(tmp_path: Path) -> None:
    report = export(LogSums(), tmp_path / "m.onnx", torch.randn(2, 5, SIZE), form="scan", branches=False)
    assert "Scan" in {node.op_type for node in all_nodes(onnx.load(report.path).graph)}


class Float64(LogSums):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())


def test_in_float64_its_precision_stays(tmp_path: Path) -> None:
    export(Float64(), tmp_path / "m.onnx", torch.randn(2, 5, SIZE, dtype=torch.float64))
    x = torch.randn(1, 200, SIZE, dtype=torch.float64)
    np.testing.assert_allclose(load(tmp_path / "m.onnx").run(x.numpy()), Float64()(x), **EXACT)
