"""No time steps, no rows, no valid steps: all legal, and the state is what it was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from tests.parity import leaves
from tests.strategies import Case, architectures, cases


@given(cases(times=(0,)))
def test_no_steps_give_the_initial_state(case: Case) -> None:
    module, x, state, lengths = case.build()
    y, end = module(x, state, lengths)
    assert y.shape == (x.shape[0], 0, module.output_size)
    expect_start(module, x, state, end)


@given(cases(batches=(0,)))
def test_no_rows_give_empty_results(case: Case) -> None:
    module, x, state, lengths = case.build()
    y, end = module(x, state, lengths)
    assert y.shape == (0, x.shape[1], module.output_size)
    assert [s.shape for s in leaves(end)] == [s.shape for s in leaves(module.initial_state(0, x))]


@given(cases(with_lengths=False, times=(13,), batches=(7,)))
def test_length_zero_gives_the_initial_state(case: Case) -> None:
    module, x, state, _ = case.build()
    y, end = module(x, state, torch.zeros(7, dtype=torch.int64))
    assert y.shape == (7, 13, module.output_size) and not y.any()
    expect_start(module, x, state, end)


def expect_start(module: object, x: torch.Tensor, state: object, end: object) -> None:
    start = module.initial_state(x.shape[0], x) if state is None else state  # type: ignore[attr-defined]
    for got, want in zip(leaves(end), leaves(start), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("batch", [0, 7])
@given(architecture=architectures(max_layers=2))
def test_training_step_on_nothing_is_legal(batch: int, architecture) -> None:  # type: ignore[no-untyped-def]
    module = architecture.build(0).train()
    y, end = module(torch.zeros(batch, 0, architecture.input_size, dtype=torch.float64))
    total = y.sum() + sum(s.sum() for s in leaves(end))
    if total.requires_grad:
        total.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
