"""Rows and steps laid out as one axis, and taken apart by the rows of a state: policies that learn from episodes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from tests.strategies import randomize
from tests.tolerances import fixed


class Policy(nn.Module):
    """Frames [time, batch, ...] and ends [time, batch] of episodes; the state begins anew behind each end."""

    def __init__(self, *, flat_ends: bool, values: bool) -> None:
        super().__init__()
        self.flat_ends, self.values = flat_ends, values
        self.network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 3 * 3, 4))
        self.layer, self.head = nn.LSTM(4, 6), nn.Linear(6, 2)

    def forward(self, frames: Tensor, h: Tensor, c: Tensor, ends: Tensor) -> tuple[Tensor, ...]:
        rows = h.shape[1]
        found = self.network(frames.flatten(0, 1)).reshape(-1, rows, 4)
        done = ends.flatten().reshape(-1, rows) if self.flat_ends else ends
        answers = []
        for y, d in zip(found, done, strict=False):  # as people write it
            keep = (1.0 - d).view(1, -1, 1)
            y, (h, c) = self.layer(y.unsqueeze(0), (keep * h, keep * c))
            answers.append(y)
        out = self.head(torch.flatten(torch.cat(answers), 0, 1))
        return (out.softmax(-1) if self.values else out), h, c


@settings(max_examples=3, phases=[Phase.explicit, Phase.generate])
@given(flat_ends=st.booleans(), values=st.booleans(), rows=st.integers(2, 3))
def test_episodes(flat_ends: bool, values: bool, rows: int) -> None:
    module = randomize(Policy(flat_ends=flat_ends, values=values), 0)

    def draw(batch: int, steps: int) -> tuple[Tensor, ...]:
        state = torch.zeros(1, batch, 6)
        return torch.randn(steps, batch, 1, 5, 5), state, state.clone(), (torch.rand(steps, batch) < 0.3).float()

    with tempfile.TemporaryDirectory() as folder:
        report = export(module, Path(folder) / "m.onnx", draw(rows, 5))
        model = load(report.path)
    assert report.causal, report.signature.not_causal_because
    for batch, steps in ((1, 4), (4, 9)):
        frames, h, c, ends = draw(batch, steps)
        with torch.no_grad():
            right = module(frames, h, c, ends)[0].numpy()
        got = model.run(frames=frames.numpy(), ends=ends.numpy())
        out = got if isinstance(got, np.ndarray) else got["output_0"]
        np.testing.assert_allclose(out, right, atol=fixed("float32"))
