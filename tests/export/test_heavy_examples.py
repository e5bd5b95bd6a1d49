"""Modules whose example computes so much that few of its sizes are tried."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rnncore.export.tracing import probing
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.axes import BATCH


class Frames(nn.Module):
    """Images over time, [batch, time, channels, height, width], of which each follows the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h, found = torch.zeros_like(x[:, 0]), []
        for frame in x.unbind(1):
            h = torch.tanh(self.conv(torch.cat([frame, h], 1)))
            found.append(h)
        return torch.stack(found, 1)


@pytest.mark.parametrize("most", range(1, 40))
def test_what_was_not_tried_is_not_said_of_the_module(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MOST_RUNS", most)
    torch.manual_seed(0)
    module = Frames().eval()
    try:
        found = find_axes(module, Example.of(module, torch.randn(2, 5, 3, 6, 7), None, "auto"), None)
    except ExportError as error:
        assert "hand in a smaller one" in str(error)
    else:
        assert found.inputs[0].axes[0] == BATCH and found.extents[BATCH].minimum == 1


class Chunks(nn.Module):
    """All pairs of the steps of a chunk, for each head, in one contraction, as Mamba-2 computes without kernels."""

    def forward(self, x: Tensor) -> Tensor:
        size = 256
        filled = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % size))
        heads = filled.unflatten(1, (-1, size)).unflatten(3, (4, 8))
        alike = torch.einsum("bclhn,bcshn->bclsh", heads, heads).tril(0)
        return torch.einsum("bclsh,bcshn->bclhn", alike, heads).flatten(3).flatten(1, 2)[:, : x.shape[1]]


def test_a_contraction_is_as_much_work_as_its_indices_have_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MOST_WORK", 10**9)  # of a run with 9 million
    module, x = Chunks().eval(), torch.randn(2, 9, 32)
    found = find_axes(module, Example.of(module, x, None, "auto"), None)
    assert found.inputs[0].axes[:2] == (BATCH, "time")
