"""The output size of a stack is what its head really gives, whatever the head is made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rnncore
from rnncore.runtime.errors import InputError


class Doubled(nn.Module):
    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return torch.cat((y, -y), -1)


HEADS = {
    "linear": (nn.Linear(5, 11), 11),
    "glu": (nn.Sequential(nn.Linear(5, 14), nn.GLU()), 7),
    "own": (Doubled(), 10),
    "norm": (nn.LayerNorm(5), 5),
}


@pytest.mark.parametrize("name", HEADS)
def test_output_size_is_what_comes_out(name: str) -> None:
    head, width = HEADS[name]
    stack = rnncore.Stacked([rnncore.Recurrent(rnncore.GRUCell(3, 5)), head])
    assert stack.output_size == width
    assert stack(torch.randn(2, 7, 3))[0].shape == (2, 7, width)


def test_finding_the_width_leaves_no_trace() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, y: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return y

    head = Counting()
    rnncore.Stacked([rnncore.Recurrent(rnncore.GRUCell(3, 5)), head])
    assert head.calls == 0 and head.training


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (nn.Sequential(nn.Linear(6, 2)), r"layer 1, a Sequential, fails on what comes from below, \[batch, time, 5\]"),
        (nn.Flatten(), r"layer 1, a Flatten, gives \(1, 5\) for one step, expected \[batch, time, features\]"),
    ],
)
def test_heads_that_do_not_fit_are_refused_at_once(head: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rnncore.Stacked([rnncore.Recurrent(rnncore.GRUCell(3, 5)), head])
