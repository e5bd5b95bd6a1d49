"""The sizes that torch traces with say nothing about others by chance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.export.rolled import exported


class Parts(nn.Module):
    """Reads the first of ``parts`` parts of its state: as wide as that many rows of a batch, which is no rule."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.into, self.weight = nn.Linear(3, parts * 8), nn.Parameter(torch.randn(5, 8))

    def forward(self, x: Tensor) -> Tensor:
        z, outputs = x.new_zeros(x.shape[0], self.into.out_features), []
        for t in range(x.shape[1]):
            z = torch.tanh(self.into(x[:, t]) + z)
            outputs.append(nn.functional.linear(z[..., :8], self.weight.relu()))
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_states_in_parts_are_exported_for_every_batch(parts: int, tmp_path: Path) -> None:
    draw = lambda b, t: torch.randn(b, t, 3)  # noqa: E731
    _, report = exported(Parts(parts), tmp_path, draw(2, 9), draw, [(1, 4), (parts, 9), (7, 12)])
    assert report.causal
