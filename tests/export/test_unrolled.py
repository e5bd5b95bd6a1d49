"""A time axis that is fixed without a loop is refused; a cell of torch over time and step by step gives the same numbers."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore import runtime
from rnncore.export import export
from rnncore.runtime.errors import ExportError
from tests.strategies import randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow
X = torch.randn(2, 6, 5)


class ByHand(nn.Module):
    """A cell of torch, driven step by step, or by rnncore."""

    def __init__(self, *, rewritten: bool) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(5, 7)
        if rewritten:
            self.cell_over_time = rnncore.Recurrent(self.cell)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "cell_over_time"):
            y, _state = self.cell_over_time(x)
            return y
        h = c = x.new_zeros(x.shape[0], 7)
        steps = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            steps.append(h)
        return torch.stack(steps, 1)


class Reshaped(nn.Module):
    """Fixes the time axis without any loop."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 7, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0] + torch.zeros(operator.index(x.shape[1]), 7)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no loop": (Reshaped, "The code fixes an axis that must stay free"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_fixed_axis_is_refused(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ExportError, match=re.escape(message)):
        export(make().eval(), tmp_path / "model.onnx", X)
    assert list(tmp_path.iterdir()) == []


def test_a_cell_over_time_streams(tmp_path: Path) -> None:
    module = ByHand(rewritten=True).eval()
    assert module.cell_over_time.cell.weight_hh is module.cell.weight_hh
    plain = ByHand(rewritten=False)
    plain.cell.load_state_dict(module.cell.state_dict())
    report = export(module, tmp_path / "model.onnx", X, streaming=True)
    with runtime.load(report.path).stream() as stream, torch.no_grad():
        got = np.concatenate([stream.push(X[0, a:b].numpy()) for a, b in ((0, 1), (1, 4), (4, 6))])
        np.testing.assert_allclose(got, plain(X)[0], rtol=0, atol=fixed("float32 same steps"))


class OneStep(nn.Module):
    """Each cell of torch once: a step for a caller who keeps the states."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTMCell(5, 7), nn.GRUCell(7, 3), nn.RNNCell(3, 2, nonlinearity="relu")

    def forward(self, x: Tensor, h: Tensor, c: Tensor, g: Tensor) -> dict[str, Tensor]:
        h, c = self.lstm(x, (h, c))
        g = self.gru(h, g)
        return {"y": self.rnn(g), "h": h, "c": c, "g": g}


def test_one_step_is_a_model_of_one_step(tmp_path: Path) -> None:
    module = randomize(OneStep().eval(), 2)
    arguments = tuple(torch.randn(3, size) for size in (5, 7, 7, 3))
    report = export(module, tmp_path / "model.onnx", tuple(a[:2] for a in arguments))
    model = runtime.load(report.path)
    assert model.signature.lengths is None and model.outputs == ("y", "h_out", "c_out", "g_out")
    with torch.no_grad():
        expected = module(*arguments)
    for got, want in zip(model.run(*(a.numpy() for a in arguments)).values(), expected.values(), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=fixed("float32 same steps"))
