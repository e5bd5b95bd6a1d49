"""Whole architectures, drawn at random, compute what the oracle computes."""

from __future__ import annotations

import torch
from hypothesis import given

from tests.oracle.adapt import oracle_of
from tests.parity import assert_matches_oracle, leaves
from tests.strategies import Case, architectures, cases


@given(cases())
def test_architecture_matches_oracle_in_float64(case: Case) -> None:
    module, x, state, lengths = case.build(torch.float64)
    assert_matches_oracle(module, oracle_of(module), x, state, lengths)


@given(cases())
def test_architecture_matches_oracle_in_float32(case: Case) -> None:
    module, x, state, lengths = case.build(torch.float32)
    assert_matches_oracle(module, oracle_of(module), x, state, lengths)


@given(cases(architectures(max_layers=2, bounded=True), times=(53,), batches=(2,), values=("plain",)))
def test_long_inputs_match_oracle(case: Case) -> None:
    module, x, state, lengths = case.build(torch.float32)
    assert_matches_oracle(module, oracle_of(module), x, state, lengths)


@given(cases())
def test_final_state_has_the_shape_of_the_initial_one(case: Case) -> None:
    module, x, state, lengths = case.build()
    _, end = module(x, state, lengths)
    start = module.initial_state(x.shape[0], x)
    assert [(s.shape, s.dtype) for s in leaves(end)] == [(s.shape, s.dtype) for s in leaves(start)]
    assert module.output_size == case.architecture.output_size
