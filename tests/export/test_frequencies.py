"""Frequencies of axes that are fixed and of time, and sums over letters that one operand has once only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE, exported

SIZE = 6


class Features(nn.Module):
    """A filter over features, by their frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.rnn = nn.Parameter(torch.randn(SIZE // 2 + 1, 2)), nn.GRU(SIZE, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        found = torch.fft.rfft(x, dim=-1) * torch.view_as_complex(self.weight)
        return self.rnn(torch.fft.irfft(found, n=SIZE, dim=-1))[0]


class Sizes(Features):
    def forward(self, x: Tensor) -> Tensor:
        found = torch.fft.rfft(x, dim=-1)
        return self.rnn(torch.cat([found.abs(), found.imag[..., :2]], -1))[0]


class LongConvolution(nn.Module):
    """A convolution as long as the sequence, by frequencies: ``irfft(rfft(x, 2 n) rfft(kernel, 2 n))``."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.rnn = nn.Parameter(torch.randn(SIZE, 64) / 4), nn.GRU(SIZE, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        steps, x = x.shape[1], x.transpose(1, 2)
        found = torch.fft.rfft(x, n=2 * steps) * torch.fft.rfft(self.kernel[:, :steps], n=2 * steps)
        y = torch.fft.irfft(found, n=2 * steps)[..., :steps]
        return self.rnn(y.transpose(1, 2))[0]


def _draw(rows: int, steps: int) -> Tensor:
    return torch.randn(rows, steps, SIZE)


@pytest.mark.parametrize(("kind", "streams"), [(Features, True), (Sizes, True), (LongConvolution, False)])
def test_frequencies(kind: type[nn.Module], streams: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, report = exported(kind(), tmp_path, _draw(2, 16), _draw, [(1, 1), (3, 11), (2, 40)])
    assert report.causal == streams


class Shared(nn.Module):
    """Heads that share keys: ``einsum`` stretches their axis of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.rnn = nn.Linear(SIZE, 2 * SIZE), nn.GRU(2 * SIZE, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q(x).unflatten(2, (2, SIZE)), x.unsqueeze(2)
        scores = torch.einsum("bthd,bshd->bhts", q, k)
        y = torch.einsum("bhts,bshd->bthd", torch.softmax(scores, 3), k)
        return self.rnn(y.flatten(2))[0]


def test_letters_that_one_operand_has_once_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Shared().eval()
    export(module, path := tmp_path / "model.onnx", _draw(2, 8))
    x = _draw(3, 11)
    with torch.no_grad():
        np.testing.assert_allclose(load(path).run(x.numpy()), module(x).numpy(), **TOLERANCE)
