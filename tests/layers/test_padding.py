"""What lies in the padding, NaN included, changes no answer and no gradient; past a length the output is zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rnncore
from rnncore.layers.base import valid_steps
from tests.cells.variants import VARIANTS, example
from tests.parity import assert_same, depth_of, gradients, leaves, named
from tests.strategies import Case, cases, randomize
from tests.tolerances import fixed

POISON = (float("nan"), float("inf"), -float("inf"), 1e30, -7.0)


@given(cases(with_lengths=True, times=(13, 1), batches=(7, 1)), st.sampled_from(POISON))
def test_padding_changes_no_answer_and_no_gradient(case: Case, poison: float) -> None:
    module, x, state, lengths = case.build()
    padding = ~valid_steps(lengths, x.shape[1])
    clean = gradients(module, x.masked_fill(padding, 0.0), state, lengths)
    dirty = gradients(module, x.masked_fill(padding, poison), state, lengths)
    for name, value in clean.items():
        assert np.isfinite(value).all(), name
        assert np.array_equal(dirty[name], value), f"{name} changed with {poison} in the padding"
    assert not clean["y"][padding.squeeze(2).numpy()].any()
    assert not clean["grad.x"][padding.squeeze(2).numpy()].any()


@pytest.mark.parametrize("fused", [False, True], ids=["loop", "fused"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", VARIANTS)
def test_nan_in_the_padding_of_every_cell(name: str, reverse: bool, fused: bool) -> None:
    x, lengths = example()
    layer = randomize(rnncore.Recurrent(VARIANTS[name].build(5), reverse=reverse, fused=fused).double(), 10)
    padding = ~valid_steps(lengths, x.shape[1])
    clean = gradients(layer, x.masked_fill(padding, 0.0), None, lengths)
    dirty = gradients(layer, x.masked_fill(padding, float("nan")), None, lengths)
    for what, value in clean.items():
        assert np.array_equal(dirty[what], value), what


@given(cases(with_lengths=True, times=(13,), batches=(7,)))
def test_more_padding_changes_no_answer(case: Case) -> None:
    module, x, state, lengths = case.build()
    longer = torch.cat([x, torch.full_like(x[:, :5], float("nan"))], 1)
    with torch.no_grad():
        (y, end), (y_longer, end_longer) = module(x, state, lengths), module(longer, state, lengths)
    assert (
        torch.allclose(
            y, y_longer[:, :13], rtol=fixed("float64 padded gradient"), atol=fixed("float64 padded gradient")
        )
        and not y_longer[:, 13:].any()
    )
    for short, long in zip(leaves(end), leaves(end_longer), strict=True):
        assert torch.allclose(short, long, rtol=fixed("float64 padded gradient"), atol=fixed("float64 padded gradient"))


@given(cases(with_lengths=False, times=(13, 1)))
def test_full_lengths_equal_no_lengths(case: Case) -> None:
    module, x, state, _ = case.build()
    full = torch.full((x.shape[0],), x.shape[1])
    got, want = named(*module(x, state, full)), named(*module(x, state))
    assert_same(got, want, x.dtype, "chunked", depth=depth_of(module), x=x)
