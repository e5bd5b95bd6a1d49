"""What modules hold besides tensors: layers of torch that only look quantized, and types that answer in their own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.nesting import named_tensors, with_tensors
from rnncore.export.tracing.own_steps.own_step import rebuilt
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE


@pytest.mark.slow
def test_layers_that_could_be_quantized_are_in_floating_point(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.ao.nn.quantizable.LSTM(4, 5, 2, batch_first=True).eval()
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 6, 4))
    assert report.causal
    x = torch.randn(3, 9, 4)
    np.testing.assert_allclose(load(report.path).run(x.numpy())["output_0"], module(x)[0].detach().numpy(), **TOLERANCE)


class _Injecting(type):
    """Of types that make their attributes when they are asked for, and fail with an error of their own."""

    def __getattr__(cls, name: str) -> Any:
        raise RuntimeError(f"cannot resolve '{name}'")


class Quantizer(metaclass=_Injecting):
    """One of them."""


def test_types_are_asked_for_nothing() -> None:
    value = [torch.ones(2), Quantizer]
    assert [name for name, _ in named_tensors(value, "x")] == ["x_0"]
    assert with_tensors(value, iter([torch.zeros(2)]))[1] is rebuilt(value, iter([torch.zeros(2)]))[1] is Quantizer


class Holds(nn.Module):
    """A cell in a loop, and such a type among its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 5)

    def forward(self, x: Tensor, kind: Any = Quantizer) -> Tensor:
        h, found = x.new_zeros(x.size(0), 5), []
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            found.append(h)
        return torch.stack(found, 1)


def test_a_type_may_be_an_argument(tmp_path: Path) -> None:
    report = export(Holds().eval(), tmp_path / "model.onnx", (torch.randn(2, 6, 4), Quantizer))
    assert report.causal
