"""Reverse is forward on the mirrored input; bidirectional is forward plus reverse."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import rnncore
from tests.cells.variants import VARIANTS
from tests.parity import assert_same, named
from tests.strategies import SEEDS, Inputs, inputs, randomize

CELLS = st.sampled_from(sorted(VARIANTS))


def mirrored(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each row turned around within its length, row by row."""
    result = x.clone()
    for row in range(x.shape[0]):
        length = x.shape[1] if lengths is None else int(lengths[row])
        result[row, :length] = x[row, :length].flip(0)
    return result


@given(CELLS, inputs(5), SEEDS)
def test_reverse_is_forward_on_the_mirrored_input(name: str, drawn: Inputs, seed: int) -> None:
    reverse = randomize(rnncore.Recurrent(VARIANTS[name].build(5), reverse=True).double(), seed)
    forward = rnncore.Recurrent(copy.deepcopy(reverse.cell))
    x, state, lengths = drawn.tensors(reverse)
    with torch.no_grad():
        got = reverse(x, state, lengths)
        y, end = forward(mirrored(x, lengths), state, lengths)
    assert_same(named(*got), named(mirrored(y, lengths), end), x.dtype, "chunked", depth=1, x=x)


@given(CELLS, CELLS, inputs(5), SEEDS)
def test_bidirectional_is_forward_plus_reverse(ahead: str, back: str, drawn: Inputs, seed: int) -> None:
    both = rnncore.Bidirectional(VARIANTS[ahead].build(5), VARIANTS[back].build(5)).double()
    randomize(both, seed)
    x, state, lengths = drawn.tensors(both)
    forward = rnncore.Recurrent(copy.deepcopy(both.forward_layer.cell))
    reverse = rnncore.Recurrent(copy.deepcopy(both.backward_layer.cell), reverse=True)
    with torch.no_grad():
        got = both(x, state, lengths)
        y_ahead, end_ahead = forward(x, None if state is None else state[0], lengths)
        y_back, end_back = reverse(x, None if state is None else state[1], lengths)
    want = named(torch.cat([y_ahead, y_back], 2), (end_ahead, end_back))
    assert_same(named(*got), want, x.dtype, "chunked", depth=1, x=x)


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_never_sees_the_future_and_reverse_never_the_past(name: str) -> None:
    cell = randomize(VARIANTS[name].build(5).double(), 1)
    x = torch.randn(2, 13, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 6] += 1.0
    for reverse in (False, True):
        layer = rnncore.Recurrent(cell, reverse=reverse)
        with torch.no_grad():
            same = (layer(x)[0] - layer(changed)[0]).abs().amax((0, 2)) == 0
        blind = torch.arange(13) > 6 if reverse else torch.arange(13) < 6
        assert torch.equal(same, blind)
