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
