"""Group norms of what a loop gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export.tracing.rolling.group_norm import group_norm
from tests.export.rolled import TOLERANCE, exported


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.lists(st.integers(1, 3), max_size=2), st.booleans())
def test_it_is_what_torch_gives(batch: int, groups: int, each: int, rest: list[int], affine: bool) -> None:
    x = torch.randn(batch, groups * each, *rest)
    assume(x[0].numel() > groups)  # torch refuses groups of one number
    scale = (torch.randn(groups * each), torch.randn(groups * each)) if affine else (None, None)
    torch.testing.assert_close(group_norm(x, groups, *scale), F.group_norm(x, groups, *scale), **TOLERANCE)


class Normed(nn.Module):
    """inside: what the next step reads is normed; otherwise only what comes out."""

    def __init__(self, *, inside: bool) -> None:
        super().__init__()
        self.into, self.norm, self.head = nn.Linear(3, 6), nn.GroupNorm(2, 6), nn.Linear(6, 2)
        self._inside = inside

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], 6), []
        for t in range(x.shape[1]):
            h = torch.tanh(self.into(x[:, t]) + h)
            h, y = (self.norm(h), h) if self._inside else (h, self.norm(h))
            outputs.append(self.head(y))
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("inside", [False, True])
def test_loops_with_one_stream(*, inside: bool, tmp_path: Path) -> None:
    draw = lambda b, t: torch.randn(b, t, 3)  # noqa: E731
    _, report = exported(Normed(inside=inside), tmp_path, draw(2, 9), draw, [(1, 4), (3, 13)])
    assert report.causal
