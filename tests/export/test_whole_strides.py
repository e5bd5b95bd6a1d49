"""Padding up to whole strides, ``ceil`` of a quotient of the size, before and inside of loops over time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.export.rolled import exported


def _whole(x: Tensor, kernel: int, stride: int) -> Tensor:
    """``x`` [batch, channels, time] padded so that the last frame is whole."""
    steps, before = x.shape[-1], kernel - stride
    frames = (steps - kernel + before) / stride + 1
    ideal = (math.ceil(frames) - 1) * stride + (kernel - before)
    return functional.pad(x, (before, ideal - steps))


class Strided(nn.Module):
    """[batch, time, 4]: a strided convolution, and a loop over its frames."""

    def __init__(self, *strides: int) -> None:
        super().__init__()
        self.strides = strides
        widths = [4, *[6] * len(strides)]
        self.convs = nn.ModuleList(
            nn.Conv1d(width, 6, stride + 2, stride) for width, stride in zip(widths, strides, strict=False)
        )
        self.cell = nn.GRUCell(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = x.mT
        for conv, stride in zip(self.convs, self.strides, strict=True):
            y = torch.tanh(conv(_whole(y, stride + 2, stride)))
        h, found = y.new_zeros(y.shape[0], 5), []
        for t in range(y.shape[-1]):
            h = self.cell(y[:, :, t], h)
            found.append(h)
        return torch.stack(found, 1)


@pytest.mark.parametrize("strides", [(3,), (2, 3)])
def test_frames_are_whole_at_every_length(strides: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)

    def draw(batch: int, time: int) -> Tensor:
        return torch.randn(batch, time, 4)

    sizes = [(2, 31), (1, 7), (3, 40), (2, 65), (1, 72)]
    exported(Strided(*strides), tmp_path, draw(2, 31), draw, sizes)
