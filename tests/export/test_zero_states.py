"""An initial state that forward writes out, zeros as most torch code does or another constant, still streams."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.graph.zero_values import always_zero
from rnncore.runtime import load
from tests.strategies import randomize
from tests.tolerances import fixed

INPUT, HIDDEN, LAYERS = 3, 5, 2


class ByHand(nn.Module):
    """The classic torch recipe: zeros of [layers, batch, hidden], made in forward."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(INPUT, HIDDEN, LAYERS, batch_first=True)
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        h0 = torch.full((LAYERS, x.size(0), HIDDEN), self.value)
        c0 = torch.zeros(LAYERS, x.size(0), HIDDEN)
        y, _ = self.lstm(x, (h0, c0))
        return y


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_zeros_given_by_hand_stream(tmp_path: Path, value: float) -> None:
    module = randomize(ByHand(value).eval(), seed=3)
    path = tmp_path / "model.onnx"
    report = export(module, path, torch.randn(1, 4, INPUT))
    assert report.causal
    x = torch.randn(3, 7, INPUT, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = module(x).numpy()
    model = load(path)
    np.testing.assert_allclose(model.run(x.numpy()), expected, atol=fixed("float32 same steps"))
    if value == 0.0:
        assert [s.name for s in report.signature.states] == [f"lstm.layers.{i}.{s}" for i in range(2) for s in "hc"]
    with model.stream() as stream:
        parts = [stream.push(x[0, a:b].numpy()) for a, b in ((0, 3), (3, 4), (4, 7))]
    np.testing.assert_allclose(np.concatenate(parts), expected[0], atol=fixed("float32 same steps"))


class PartlyZero(nn.Module):
    """A start of which one part is zero and another is not: joined, or added."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.gru = nn.GRU(INPUT, HIDDEN, LAYERS, batch_first=True)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        zeros = torch.zeros(1, x.size(0), HIDDEN)
        if self.how == "zeros first":
            start = torch.cat([zeros, torch.full_like(zeros, 0.5)])
        elif self.how == "zeros last":
            start = torch.cat([torch.full_like(zeros, 0.5), zeros])
        elif self.how == "half a layer":
            start = torch.cat([zeros[:, :, :2], torch.full_like(zeros, 0.5)[:, :, 2:]], 2).repeat(LAYERS, 1, 1)
        else:
            start = (zeros + 0.5 * torch.ones_like(zeros)).repeat(LAYERS, 1, 1)
        return self.gru(x, start)[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["zeros first", "zeros last", "half a layer", "added"])
def test_a_start_that_is_zero_in_part_is_kept(how: str, tmp_path: Path) -> None:
    """The file starts where PyTorch does, in whole sequences and, if it streams, in chunks."""
    module = randomize(PartlyZero(how).eval(), seed=3)
    report = export(module, tmp_path / "model.onnx", torch.randn(1, 4, INPUT))
    x = torch.randn(3, 7, INPUT, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = module(x).numpy()
    model = load(report.path)
    np.testing.assert_allclose(model.run(x.numpy()), expected, atol=fixed("float32 same steps"))
    if report.causal:
        with model.stream() as stream:
            parts = [stream.push(x[0, a:b].numpy()) for a, b in ((0, 3), (3, 4), (4, 7))]
        np.testing.assert_allclose(np.concatenate(parts), expected[0], atol=fixed("float32 same steps"))


def joined(operator: str, *parts: str) -> ir.Value:
    """The output of an operator over zeros, halves, numbers of the caller's (x), and zeros of a computed shape (made)."""
    constants = {
        "zeros": np.zeros((1, 3), np.float32),
        "halves": np.full((1, 3), 0.5, np.float32),
        "shape": np.array([1, 3]),
    }
    attributes = {"axis": 0} if operator == "Concat" else {}
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["made"]),
            helper.make_node(operator, parts, ["joined"], **attributes),
            helper.make_node("Transpose", ["joined"], ["y"]),
        ],
        "start",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return ir.from_proto(helper.make_model(graph)).graph.outputs[0]


@pytest.mark.parametrize("operator", ["Concat", "Add"])
def test_only_what_is_zero_in_every_part_is_zero(operator: str) -> None:
    for parts in product(("zeros", "made", "halves", "x"), repeat=2):
        assert always_zero(joined(operator, *parts)) == (not {"halves", "x"} & set(parts)), parts
