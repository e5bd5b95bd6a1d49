"""Modules in float64 and float16, with parameters and without: what they compute in, and Python's numbers among it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.torch_onnx import to_onnx, to_program
from rnncore.export.tracing.wide_numbers import numbers_of
from rnncore.runtime import load
from tests.tolerances import fixed

EXACT = {"rtol": fixed("float64"), "atol": fixed("float64")}


class Average(nn.Module):
    """A moving average, written as a loop, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        h, out = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            h = 0.9 * h + 0.1 * x[:, t]
            out.append(h)
        return torch.stack(out, 1)


class Widened(nn.Module):
    """Parameters in float32, a loop in float64 that starts from ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x).double()
        h, out = torch.ones(x.shape[0], 3, dtype=torch.float64), []
        for t in range(x.shape[1]):
            h = 0.9 * h + 0.1 * x[:, t] * self.layer.weight[0].double()
            out.append(h)
        return torch.stack(out, 1)


class Scaled(nn.Module):
    """A layer between numbers of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(0.3 * x + 0.1)[0]).clamp(-0.7, 1.1) / 1.3


@pytest.mark.parametrize("form", ["loop", "scan"])
@pytest.mark.parametrize("make", [Average, Scaled], ids=["without parameters", "with"])
def test_float64_is_float64_all_through(make: type[nn.Module], form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = make().double().eval()
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 5, 3, dtype=torch.float64), form=form)  # type: ignore[arg-type]
    model = load(report.path)
    assert model.metadata["rnncore.precision"] == "float64" and report.causal
    x = torch.randn(2, 90, 3, dtype=torch.float64)
    with torch.no_grad():
        wanted = module(x).numpy()
    np.testing.assert_allclose(model.run(x.numpy()), wanted, **EXACT)
    with model.stream() as stream:
        np.testing.assert_allclose(
            np.concatenate([stream.push(part) for part in np.split(x[0].numpy(), [1, 40])]), wanted[0], **EXACT
        )


def test_a_loop_in_wider_floats_than_the_parameters_starts_where_it_starts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Widened().eval()
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 5, 3))
    x = torch.randn(2, 9, 3)
    with torch.no_grad():
        np.testing.assert_allclose(
            load(report.path).run(x.numpy()), module(x), rtol=fixed("float32"), atol=fixed("float32")
        )
    assert report.causal and [state.dtype for state in report.signature.states] == ["float64"]


def test_float16_without_parameters_is_judged_as_float16(tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = export(Average(), tmp_path / "m.onnx", torch.randn(2, 5, 3).half())
    assert load(report.path).metadata["rnncore.precision"] == "float16"


class Number(nn.Module):
    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        n = self.number
        return x * n, n + x, torch.where(x > 0, x, n), x.masked_fill(x > 0, n), torch.full_like(x, n) - x


@given(number=st.floats(1e-30, 1e30).flatmap(lambda n: st.sampled_from([n, -n])), narrow=st.booleans())
def test_numbers_keep_the_precision_of_what_they_meet(number: float, narrow: bool) -> None:
    dtype = torch.float32 if narrow else torch.float64
    x = torch.tensor([[0.7, -0.3, 1.9]], dtype=dtype)
    model = to_onnx(Number(number), (x,), None, what="it")
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    for got, wanted in zip(
        session.run(None, {session.get_inputs()[0].name: x.numpy()}), Number(number)(x), strict=True
    ):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=fixed("float32" if narrow else "float64"))


def test_two_numbers_that_float32_takes_for_one_are_left_alone() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0.9 + (x * (0.9 + 1e-12) - 0.1) * 0.5

    program = to_program(Two(), (torch.ones(2, dtype=torch.float64),), None, what="it")
    assert list(numbers_of(program).values()) == [0.1], "0.9 is two, and 0.5 is the same in both"
