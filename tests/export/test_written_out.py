"""Complex numbers beside layers, where torch's own trace has no operator for them: what was recorded has two real ones each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.export.rolled import exported

FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "padded": lambda z: F.pad(z, (0, 0, 2, 0)).unfold(1, 3, 1),
    "turned": lambda z: torch.stack([z * 1j, z.conj(), torch.exp(1j * z.real)], -1),
}


class DeepFilter(nn.Module):
    """Filters a spectrogram by complex coefficients that a layer gives, as speech enhancement does."""

    def __init__(self, taps: str) -> None:
        super().__init__()
        self.gru, self.coefficients, self._taps = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 18), FILTERS[taps]

    def forward(self, x: Tensor) -> Tensor:  # [batch, time, 3 bands, 2] -> the same
        coefficients = self.coefficients(self.gru(x.flatten(2))[0]).unflatten(-1, (3, 3, 2))
        filtered = self._taps(torch.view_as_complex(x)) * torch.view_as_complex(coefficients)
        return torch.view_as_real(filtered.sum(-1))


@pytest.mark.parametrize("taps", FILTERS)
def test_a_deep_filter_streams(taps: str, tmp_path: Path) -> None:
    torch.manual_seed(8)
    _, report = exported(
        DeepFilter(taps),
        tmp_path,
        torch.randn(2, 9, 3, 2),
        lambda batch, time: torch.randn(batch, time, 3, 2),
        [(1, 1), (3, 20)],
    )
    assert report.causal
