"""States in attributes that the caller has set to zeros for a batch: ``model.hidden = model.init_hidden(batch)``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.copying import unchanged
from tests.tolerances import fixed

ROWS = 3


class Sequences(nn.Module):
    """Layers over a whole sequence, from the state of the last one."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.layers, self.first = nn.LSTM(4, 5, 2, batch_first=batch_first), batch_first
        self.start(ROWS)

    def start(self, rows: int) -> None:
        self.hidden = (torch.zeros(2, rows, 5), torch.zeros(2, rows, 5))

    def forward(self, x: Tensor) -> Tensor:
        y, self.hidden = self.layers(x, self.hidden)
        return torch.tanh(y)


class Steps(nn.Module):
    """One step, its states written into a list."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(4, 4), nn.LSTMCell(4, 4)])
        self.start(ROWS)

    def start(self, rows: int) -> None:
        self.hidden = [(torch.zeros(rows, 4), torch.zeros(rows, 4)) for _ in range(2)]

    def forward(self, x: Tensor) -> Tensor:
        for i, cell in enumerate(self.cells):
            self.hidden[i] = cell(x, self.hidden[i])
            x = self.hidden[i][0]
        return x


@pytest.mark.parametrize("batch_first", [True, False])
def test_whole_sequences_begin_with_zeros(batch_first: bool, tmp_path: Path) -> None:
    module = Sequences(batch_first).eval()
    report = export(module, tmp_path / "m.onnx", torch.randn(*((ROWS, 7) if batch_first else (7, ROWS)), 4))
    assert report.causal and "forward keeps its state in 'hidden': every sequence begins with zeros" in str(report)
    assert not any(state.any() for state in module.hidden)  # what was handed in is as it was
    model = runtime.load(report.path)
    for rows, steps in ((1, 2), (5, 12)):
        x = torch.randn(*((rows, steps) if batch_first else (steps, rows)), 4)
        module.start(rows)
        with torch.no_grad():
            np.testing.assert_allclose(model.run(x.numpy()), module(x).numpy(), atol=fixed("float32"))


def test_steps_begin_with_zeros_in_a_list(tmp_path: Path) -> None:
    module = Steps().eval()
    report = export(module, tmp_path / "m.onnx", torch.randn(ROWS, 4))
    assert report.causal
    model = runtime.load(report.path)
    for rows in (1, 5):
        x, expected = torch.randn(rows, 9, 4), []
        module.start(rows)
        with torch.no_grad():
            expected = [module(x[:, t]).numpy() for t in range(9)]
        np.testing.assert_allclose(model.run(x.numpy()), np.stack(expected, 1), atol=fixed("float32"))


def test_what_forward_writes_into_lists_is_taken_back() -> None:
    module = Steps().eval()
    module.table = {"seen": 0, "deep": ([1, 2],)}
    with unchanged(module):
        module(torch.randn(ROWS, 4))
        module.table["seen"] = 1
        module.table["deep"][0].append(3)
    assert not any(state.any() for pair in module.hidden for state in pair)
    assert module.table == {"seen": 0, "deep": ([1, 2],)}
