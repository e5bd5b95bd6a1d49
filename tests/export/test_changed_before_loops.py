"""Loops over the entries of what was changed in place before, as after ``nn.ReLU(inplace=True)``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.export.rolled import exported, rolled

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu_": lambda x: F.relu_(x * 1.5),
    "add_": lambda x: (x * 1.5).add_(0.25),
    "a column": lambda x: _with_column(x * 1.5),
    "nothing": lambda x: x * 1.5,
}
LISTS: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "unbind": lambda x: x.unbind(1),
    "rows": lambda x: tuple(x.transpose(0, 1)),
    "a part, turned": lambda x: torch.split(x, 3, dim=2)[1].transpose(0, 1).unbind(0),
    "folded": lambda x: x.flatten(0, 1).unflatten(0, x.shape[:2])[..., :3].unbind(1),
}


def _with_column(x: Tensor) -> Tensor:
    x[..., 0] = 0.5
    return x


class Looped(nn.Module):
    """A loop over the entries of a sequence that was changed."""

    def __init__(self, change: str, listed: str) -> None:
        super().__init__()
        self.narrow = listed in ("a part, turned", "folded")
        self.cell = nn.GRUCell(3 if self.narrow else 6, 4)
        self._change, self._listed = CHANGES[change], LISTS[listed]

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], 4), []
        for entry in self._listed(self._change(x)):
            h = self.cell(entry, h)
            outputs.append(h)
        return torch.stack(outputs, 1)


@given(change=st.sampled_from(list(CHANGES)), listed=st.sampled_from(list(LISTS)))
@settings(deadline=None, max_examples=12)
def test_it_is_rolled_as_if_it_had_not_been_changed(change: str, listed: str) -> None:
    program = rolled(Looped(change, listed), torch.randn(2, 5, 6))
    assert program is not None and len(program.loops) == 1


class Frames(nn.Module):
    """A recurrent decoder of video: convolutions over all frames at once, in place, then a loop with a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.gates = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:  # [batch, time, 2, height, width]
        a, b = self.front(x.flatten(0, 1)).unflatten(0, x.shape[:2]).split(2, 2)
        outputs = []
        for frame in b.unbind(1):
            h = torch.tanh(self.gates(torch.cat([frame, h], 1)))
            outputs.append(h)
        return torch.cat([a, torch.stack(outputs, 1)], 2), h


def test_a_decoder_of_video_streams(tmp_path: Path) -> None:
    torch.manual_seed(3)

    class Whole(Frames):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, x.new_zeros(x.shape[0], 2, *x.shape[3:]))[0]

    _, report = exported(
        Whole().eval(), tmp_path, torch.randn(2, 5, 2, 4, 3), lambda b, t: torch.randn(b, t, 2, 4, 3), [(1, 2), (3, 8)]
    )
    assert report.causal


@pytest.mark.parametrize("change", CHANGES)
def test_its_numbers_are_right(change: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    _, report = exported(
        Looped(change, "unbind"), tmp_path, torch.randn(2, 5, 6), lambda b, t: torch.randn(b, t, 6), [(1, 1), (3, 9)]
    )
    assert report.causal
