"""Loops whose values have several entries for each row (heads folded into the batch), and ranges that move with the step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export.tracing.rolling.cell import Packing
from tests.export.rolled import TOLERANCE, exported, rolled, streamed

HEADS, SIZE = 2, 3


@given(
    others=st.lists(st.integers(1, 3), max_size=2),
    at=st.integers(0, 2),
    folded=st.integers(2, 3),
    rows=st.integers(1, 3),
)
def test_folded_entries_of_a_row_lie_in_it(others: list[int], at: int, folded: int, rows: int) -> None:
    axis = min(at, len(others))
    shape = (*others[:axis], folded, *others[axis:])
    packing = Packing(shape, axis, torch.float32, folded=folded)
    value = torch.randn(4, *packing.shape_of(rows))
    assert packing.rows_of(value[0]) == rows
    laid = packing.rows(value[0], rows, torch.float32)
    assert laid.shape == (rows, *shape)
    assert torch.equal(packing.value(laid), value[0])
    packed = packing.packed(value, rows, torch.float32)
    assert packed.shape == (rows, 4, packing.size)
    assert torch.equal(packing.unpacked(packed), value)
    for row in range(rows):
        own = value[0].narrow(axis, row * folded, folded)
        assert torch.equal(laid[row], own)


class Heads(nn.Module):
    """A memory for each head, all of them rows of one product; the heads take part in the batch from the start."""

    def __init__(self, *, carries_folded: bool) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(HEADS * SIZE, HEADS * SIZE), nn.Linear(HEADS * SIZE, HEADS * SIZE)
        self._folded = carries_folded

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        memory = x.new_zeros(rows * HEADS, SIZE, SIZE) if self._folded else x.new_zeros(rows, HEADS, SIZE, SIZE)
        last, kept = x.new_zeros(rows, HEADS, SIZE), []
        for t in range(x.shape[1]):
            q, k = (part(x[:, t]).unflatten(1, (HEADS, SIZE)) for part in (self.q, self.k))
            last = torch.tanh(q + 0.5 * last)
            new = torch.einsum("bhd,bhm->bhdm", last, k)
            memory = 0.9 * memory + (new.flatten(0, 1) if self._folded else new)
            y = torch.einsum("bhd,bhdm->bhm", q, memory.reshape(rows, HEADS, SIZE, SIZE))
            kept.append(y.flatten(1))
        return torch.stack(kept, 1)


def _draw(rows: int, steps: int) -> Tensor:
    return torch.randn(rows, steps, HEADS * SIZE)


@pytest.mark.parametrize("carries_folded", [False, True])
def test_heads_that_are_folded_into_the_batch_stream(carries_folded: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Heads(carries_folded=carries_folded)
    model, report = exported(module, tmp_path, _draw(2, 8), _draw, [(1, 1), (3, 11)])
    assert report.causal
    x = _draw(1, 9)
    with torch.no_grad():
        np.testing.assert_allclose(streamed(model, x[0], (1, 4, 4)), module(x)[0].numpy(), **TOLERANCE)


class Places(nn.Module):
    """The places of a step and of the next one, turned into angles: ``torch.arange(t, t + 2)``."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(HEADS * SIZE, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, kept = x.new_zeros(x.shape[0], 2), []
        for t in range(x.shape[1]):
            h = torch.tanh(h + self.into(x[:, t]) * torch.cos(0.3 * torch.arange(t + 1, t + 3)))
            kept.append(h)
        return torch.stack(kept, 1)


@given(rows=st.integers(1, 3), steps=st.integers(1, 12))
def test_a_range_that_moves_with_the_step(rows: int, steps: int) -> None:
    torch.manual_seed(1)
    program = rolled(module := Places(), _draw(2, 8))
    assert program is not None
    x = _draw(rows, steps)
    with torch.no_grad():
        torch.testing.assert_close(next(iter(program(x).values())), module(x))
