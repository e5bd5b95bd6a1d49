"""The strategies themselves: what they promise is what makes the properties see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

import rnncore
from tests.parity import leaves
from tests.strategies import (
    BATCHES,
    CELLS,
    FEATURES,
    TIMES,
    Architecture,
    Case,
    Inputs,
    architectures,
    cases,
    chunkings,
    inputs,
    lengths_of_chunks,
    pieces,
)


def exists(strategy: st.SearchStrategy[Any], condition: Callable[[Any], bool]) -> Any:
    """An example of ``strategy`` that meets ``condition``, not made small."""
    return find(strategy, condition, settings=settings(phases=[Phase.generate], max_examples=2000))


def test_features_batches_and_times_share_no_size_but_zero_and_one() -> None:
    assert not set(FEATURES) & {*BATCHES, *TIMES} and set(BATCHES) & set(TIMES) == {0, 1}
    for size in {*FEATURES, *BATCHES, *TIMES} - {0, 1}:
        assert all(size % divisor for divisor in range(2, size)), f"{size} is not prime"


@given(architectures())
def test_weights_are_random_and_reproducible(architecture: Architecture) -> None:
    one, two, other = architecture.build(1), architecture.build(1), architecture.build(2)
    for name, value in one.named_parameters():
        assert torch.equal(value, dict(two.named_parameters())[name])
        assert not torch.equal(value, dict(other.named_parameters())[name])
        assert value.unique().numel() == value.numel() and value.any(), name
    narrow = architecture.build(1, torch.float32)
    assert all(torch.equal(a.float(), b) for a, b in zip(one.parameters(), narrow.parameters(), strict=True))
    assert not one.training


@given(architectures(causal=True))
def test_causal_architectures_never_look_ahead(architecture: Architecture) -> None:
    assert architecture.causal
    module = architecture.build(0)
    x = torch.randn(1, 13, architecture.input_size, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(module(x)[0][:, :6], module(x.index_fill(1, torch.arange(6, 13), 0.0))[0][:, :6])


def test_every_kind_of_architecture_is_drawn() -> None:
    def has(what: str) -> None:
        exists(architectures(), lambda a: what in repr(a))

    for kind in CELLS:
        has(f"kind='{kind}'")
    for what in ("both", "reverse", "FeedForwardSpec", "'peephole': 'previous'", "'reset': 'before'", "projection"):
        has(what)
    exists(architectures(), lambda a: len({spec.cell.kind for spec in a.layers if hasattr(spec, "cell")}) == 3)
    exists(architectures(dropout=True), lambda a: a.dropout > 0)


@given(inputs(5, with_lengths=True))
def test_lengths_fit_and_inputs_vary(drawn: Inputs) -> None:
    assert drawn.x.shape == (drawn.batch, drawn.time, 5) and drawn.lengths_array is not None
    assert drawn.lengths_array.shape == (drawn.batch,) and drawn.lengths_array.dtype == np.int64
    assert all(0 <= n <= drawn.time for n in drawn.lengths_array)
    if drawn.time > 1 and drawn.batch and drawn.values != "denormal":
        assert not np.allclose(drawn.x[:, 0], drawn.x[:, 1])


def test_extreme_inputs_are_drawn() -> None:
    for values, seen in (("large", lambda x: (np.abs(x) == 1e4).any()), ("denormal", lambda x: (x == 5e-324).any())):
        drawn = exists(inputs(5, times=(13,), batches=(7,)), lambda i, values=values: i.values == values)
        assert seen(drawn.x)
    exists(inputs(5), lambda i: i.lengths is not None and 0 in i.lengths and 1 in i.lengths and i.time in i.lengths)


@given(cases())
def test_states_fit_the_module(case: Case) -> None:
    module, x, state, _ = case.build(torch.float32)
    assert isinstance(module, rnncore.Stacked) and x.dtype == torch.float32
    assert (state is not None) == case.inputs.given_state
    if state is not None:
        like = leaves(module.initial_state(case.inputs.batch, x))
        assert [s.shape for s in leaves(state)] == [s.shape for s in like]
        assert all(s.any() for s in leaves(state) if s.numel())


@given(
    st.integers(0, 13).flatmap(lambda n: st.tuples(st.just(n), chunkings(n))), st.lists(st.integers(0, 13), max_size=3)
)
def test_chunkings_cover_the_whole(drawn: tuple[int, list[int]], lengths: list[int]) -> None:
    total, chunks = drawn
    assert sum(chunks) == total and min(chunks) >= 0
    x = np.random.default_rng(0).standard_normal((3, total, 2))
    assert np.array_equal(np.concatenate(pieces(x, chunks), axis=1), x)
    valid = np.minimum(np.array(lengths, np.int64), total)
    assert np.array_equal(sum(lengths_of_chunks(valid, chunks)), valid)


def test_chunkings_have_empty_chunks() -> None:
    exists(chunkings(5), lambda chunks: 0 in chunks and len(chunks) > 3)
