"""Circular padding before a loop over time: the recording kept the padding and lost what stood in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export.tracing.rolling.circular_pad import circular
from tests.export.rolled import exported

sizes = st.integers(3, 6)
ends = st.integers(0, 3)


@given(st.data(), st.integers(1, 3))
def test_it_is_what_torch_gives(data: st.DataObject, axes: int) -> None:
    x = torch.randn(2, 3, *(data.draw(sizes) for _ in range(axes)))
    pad = [data.draw(ends) for _ in range(2 * axes)]
    wanted = F.pad(x, pad, mode="circular")
    found = circular(F.pad, (x, pad), {"mode": "circular"})
    assert found is not None and torch.equal(found, wanted)


def test_other_padding_is_left_to_torch() -> None:
    x = torch.randn(2, 3, 4)
    assert circular(F.pad, (x, (1, 1)), {}) is None and circular(F.pad, (x, (1, -1), "circular"), {}) is None
    assert circular(torch.relu, (x,), {}) is None


class Wrapped(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular")
        self._pad = (before, after)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.pad(x.transpose(1, 2), self._pad, mode="circular")).transpose(1, 2)
        h, outputs = x.new_zeros(x.shape[0], 4), []
        for t in range(x.shape[1]):
            h = torch.tanh(0.5 * h + x[:, t])
            outputs.append(h)
        return torch.stack(outputs, 1)[:, : x.shape[1] - sum(self._pad)]


@pytest.mark.parametrize("pad", [(0, 0), (2, 1), (0, 2)])
def test_loops_read_what_was_padded(pad: tuple[int, int], tmp_path: Path) -> None:
    draw = lambda b, t: torch.randn(b, t, 3)  # noqa: E731
    exported(Wrapped(*pad), tmp_path, draw(2, 9), draw, [(1, 4), (3, 9), (2, 23)])
