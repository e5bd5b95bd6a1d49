"""Pooling over one axis is spelled as another operation while a module is traced, and means the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export.tracing.pooling import PoolsAnySize
from rnncore.export.tracing.torch_onnx import to_program


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
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.max_pool1d(x, 3, 2, padding=1)
        return y, F.max_pool1d(y, y.shape[2])


def test_the_size_stays_free() -> None:
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    program = to_program(Pooled(), (torch.randn(3, 4, 9),), (free,), what="it").module()
    for rows, size in ((2, 5), (5, 32)):
        x = torch.randn(rows, 4, size)
        for found, wanted in zip(program(x), Pooled()(x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)
