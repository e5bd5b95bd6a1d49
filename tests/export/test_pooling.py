"""Pooling over one axis, and windows as wide as an axis, are spelled otherwise while a module is traced, and mean the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export.tracing.pooling import PoolsAnySize
from rnncore.export.tracing.torch_onnx import to_program
from rnncore.runtime.errors import ExportError


@given(
    kernel=st.integers(1, 5),
    stride=st.none() | st.integers(1, 4),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 3),
    ceil=st.booleans(),
    size=st.integers(1, 17),
    batched=st.booleans(),
)
def test_every_option_means_the_same(
    kernel: int, stride: int | None, padding: int, dilation: int, ceil: bool, size: int, batched: bool
) -> None:
    assume(padding <= kernel // 2 and size + 2 * padding > dilation * (kernel - 1))
    x = torch.randn(*(2,) * batched, 3, size, generator=torch.Generator().manual_seed(size))
    pool = nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=ceil)
    expected = pool(x)
    with PoolsAnySize():
        torch.testing.assert_close(pool(x), expected, rtol=0, atol=0)
        torch.testing.assert_close(F.max_pool1d(x, size), x.amax(-1, keepdim=True), rtol=0, atol=0)


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        y = F.max_pool1d(x, 3, 2, padding=1)
        bands = x.unsqueeze(1)
        return (
            y,
            F.max_pool1d(y, y.shape[2]),
            F.unfold(bands, (2, bands.shape[3]), dilation=(2, 1), padding=(1, 0), stride=(2, 1)),
            F.unfold(bands.transpose(2, 3), (bands.shape[3], 3), padding=(0, 1)),
        )


def test_the_size_stays_free() -> None:
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    program = to_program(Pooled(), (torch.randn(3, 4, 9),), (free,), what="it").module()
    for rows, size in ((2, 5), (5, 32)):
        x = torch.randn(rows, 4, size)
        for found, wanted in zip(program(x), Pooled()(x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


class Rounds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.shape[2].__index__() // 8):
            x = x.tanh()
        return x


def test_a_size_that_becomes_a_number_is_refused_with_the_line() -> None:
    with pytest.raises(ExportError, match=r'test_pooling.py", line \d+, in forward') as refused:
        to_program(Rounds(), (torch.randn(3, 4, 9),), ({2: torch.export.Dim.DYNAMIC},), what="it")
    assert "axis 2 of input 'x' as a Python number" in str(refused.value)
