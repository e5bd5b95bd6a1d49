"""Whose axis is the batch: not that of an input that nobody reads, and the only one there is, if its entries stay apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE


class Unread(nn.Module):
    """Symbols in columns, and one number a sequence that nothing follows."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.letters, self.cell, self.last = nn.Embedding(9, 4), nn.Linear(10, 6), last

    def forward(self, text: Tensor, numbers: Tensor) -> Tensor:
        entries, h, found = self.letters(text), torch.zeros(text.shape[1], 6), []
        for t in range(text.shape[0]):
            h = torch.tanh(self.cell(torch.cat([entries[t], h], 1)))
            found.append(h)
        return h if self.last else torch.stack(found)


@settings(max_examples=4, deadline=None)
@given(rows=st.integers(2, 4), steps=st.integers(5, 9), last=st.booleans())
def test_an_input_that_nobody_reads_does_not_decide(
    tmp_path_factory: pytest.TempPathFactory, rows: int, steps: int, last: bool
) -> None:
    torch.manual_seed(0)
    module, path = Unread(last).eval(), tmp_path_factory.mktemp("unread") / "m.onnx"
    text, numbers = torch.randint(9, (steps, rows)), torch.full((rows,), steps)
    report = export(module, path, (text, numbers))
    assert report.causal
    other, more = torch.randint(9, (13, 5)), torch.zeros(5, dtype=torch.long)
    with torch.no_grad():
        expected = module(other, more).numpy()
    found = load(path).run(other.numpy(), more.numpy())
    np.testing.assert_allclose(found, expected, **TOLERANCE)


class LayersFirst(nn.Module):
    """A step of two cells whose input and states lie as torch's layers have them: one in front, then the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.GRUCell(5, 6), nn.GRUCell(6, 4)

    def forward(self, x: Tensor, h: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, h, g = x.view(x.size(1), -1), h.view(h.size(1), -1), g.view(g.size(1), -1)
        h = self.first(x, h)
        g = self.second(h, g)
        return 2 * g.view(1, g.size(0), -1), h.view(1, h.size(0), -1), g.view(1, g.size(0), -1)


def test_a_step_whose_rows_come_second_streams(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = LayersFirst().eval()
    report = export(module, tmp_path / "m.onnx", (torch.randn(1, 2, 5), torch.zeros(1, 2, 6), torch.zeros(1, 2, 4)))
    assert report.causal
    x, h, g, right = torch.randn(7, 5), torch.zeros(1, 1, 6), torch.zeros(1, 1, 4), []
    with torch.no_grad():
        for t in range(len(x)):
            y, h, g = module(x[t].view(1, 1, 5), h, g)
            right.append(y.flatten().numpy())
    with load(tmp_path / "m.onnx").stream() as stream:
        found = [stream.push(x[None, t : t + 1].numpy()).ravel() for t in range(len(x))]
    np.testing.assert_allclose(found, right, **TOLERANCE)


class Silent(nn.Module):
    """Neurons in time-first order that no input makes fire: their answers are the same in any order."""

    def forward(self, x: Tensor) -> Tensor:
        v, found = torch.zeros_like(x[0]), []
        for t in range(x.shape[0]):
            h = v + (x[t] - v) / 2
            fired = (h >= 100).to(x)
            v = (1 - fired) * h
            found.append(fired)
        return torch.stack(found)


def test_silence_does_not_make_rows_of_steps(tmp_path: Path) -> None:
    report = export(Silent(), tmp_path / "m.onnx", torch.randn(9, 2, 5))
    assert report.causal
    x = 400 * torch.randn(7, 3, 5)
    found = load(tmp_path / "m.onnx").run(x.numpy())
    right = Silent()(x).numpy()
    np.testing.assert_array_equal(found, right)
    assert right.any()
