"""States [1, batch, size] whose first axis a hand-written loop squeezes: it is 1, and not the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from tests.tolerances import fixed


class Recurrence(nn.Module):
    """A simple recurrent unit, time first, as translation uses it."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.gate, self.linear, self._batch_first = nn.Linear(3, 3), nn.Linear(3, 3), batch_first

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # [time, batch, 3], [1, batch, 3]
        x = x.transpose(0, 1) if self._batch_first else x
        forget = torch.sigmoid(self.gate(x))
        new, h, states = (1 - forget) * self.linear(x), state.squeeze(0), []
        for t in range(x.shape[0]):
            h = forget[t] * h + new[t]
            states.append(h)
        y = torch.relu(torch.stack(states))
        return (y.transpose(0, 1) if self._batch_first else y), h.unsqueeze(0)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("rows", [2, 3])
def test_it_streams_with_the_batch_behind(rows: int, batch_first: bool, tmp_path: Path) -> None:
    torch.manual_seed(7)
    module = Recurrence(batch_first=batch_first).eval()
    shape = (rows, 6, 3) if batch_first else (6, rows, 3)
    report = export(module, tmp_path / "model.onnx", (torch.randn(shape), torch.zeros(1, rows, 3)))
    assert report.causal and [state.name for state in report.signature.states] == ["state"]
    x = torch.randn(1, 9, 3) if batch_first else torch.randn(9, 1, 3)
    with torch.no_grad():
        right = module(x, torch.zeros(1, 1, 3))[0]
    model = load(report.path)
    found = model.run(x.numpy())
    found = found["output_0"] if isinstance(found, dict) else found
    np.testing.assert_allclose(found, right, rtol=0, atol=fixed("float32"))
