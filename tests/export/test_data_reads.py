"""Code from before ``detach``: values read and changed by way of ``tensor.data`` or a deep copy, beside layers and in loops."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.export.rolled import exported


def _changed(y: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    y = y.clone()
    change(y.data)
    return y


READS: dict[str, Callable[[Tensor], Tensor]] = {
    "read": lambda y: y.data * 0.5,
    "like it": lambda y: y + torch.ones_like(y.data),
    "new": lambda y: torch.cat([y, y.data.new(*y.shape[:-1], 2).fill_(0.5)], -1),
    "copied": lambda y: y + copy.deepcopy(y).mul_(0.5),
    "in place": lambda y: _changed(y, lambda data: data.mul_(0.5)),
    "a column": lambda y: _changed(y, lambda data: data[..., 0].fill_(0.25)),
    "idle dropout": lambda y: _changed(y, nn.Dropout(0.5, inplace=True).eval()),
}


class Reads(nn.Module):
    """A layer, or a loop, and what it answers read by way of ``data``."""

    def __init__(self, read: str, *, loop: bool) -> None:
        super().__init__()
        self.gru, self.cell, self._read, self._loop = nn.GRU(3, 5, batch_first=True), nn.GRUCell(3, 5), read, loop

    def forward(self, x: Tensor) -> Tensor:
        if not self._loop:
            return READS[self._read](self.gru(x)[0])
        h, outputs = x.data.new(x.shape[0], 5).zero_(), []
        for t in range(x.shape[1]):
            y = READS[self._read](self.cell(x[:, t], h.data))
            h = y[:, :5]
            outputs.append(y)
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("loop", [False, True], ids=["layer", "loop"])
@pytest.mark.parametrize("read", READS)
def test_data_is_a_tensor_that_shares_its_memory(read: str, loop: bool, tmp_path: Path) -> None:
    torch.manual_seed(4)
    _, report = exported(
        Reads(read, loop=loop),
        tmp_path,
        torch.randn(2, 7, 3),
        lambda batch, time: torch.randn(batch, time, 3),
        [(1, 1), (3, 11)],
    )
    assert report.causal
