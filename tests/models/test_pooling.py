"""Pooling over time: against NumPy, each row cut to its length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rnncore.models import POOLINGS, Pooling
from rnncore.runtime import InputError
from tests.strategies import SEEDS, randomize
from tests.tolerances import bound

BATCH, TIME, SIZE, AHEAD = 7, 13, 5, 3
lengths_of_rows = st.lists(st.sampled_from((0, 1, TIME)) | st.integers(0, TIME), min_size=BATCH, max_size=BATCH)


def pooled_alone(kind: str, pooling: Pooling, row: np.ndarray) -> np.ndarray:
    """What the docstring says, for one row [time, size] without padding."""
    if len(row) == 0:
        return np.zeros(2 * SIZE if kind == "statistics" else SIZE)
    if kind == "last":
        return np.concatenate((row[-1, :AHEAD], row[0, AHEAD:]))
    if kind == "mean":
        return row.mean(0)
    if kind == "max":
        return row.max(0)
    if kind == "statistics":
        return np.concatenate((row.mean(0), np.maximum(row.std(0), 1e-3)))
    weight, bias, score = (p.detach().numpy() for p in pooling.parameters())
    scores = np.tanh(row @ weight.T + bias) @ score[0]
    weights = np.exp(scores - scores.max())
    return (weights[:, None] * row).sum(0) / weights.sum()


def zero_padded(lengths: list[int], seed: int) -> Tensor:
    y = torch.from_numpy(np.random.default_rng(seed).normal(-1.0, 2.0, (BATCH, TIME, SIZE)))
    for row, length in enumerate(lengths):
        y[row, length:] = 0
    return y


@given(st.sampled_from(POOLINGS), lengths_of_rows, SEEDS)
def test_each_row_is_pooled_as_if_alone(kind: str, lengths: list[int], seed: int) -> None:
    pooling = randomize(Pooling(kind, SIZE, AHEAD).double(), seed)
    y = zero_padded(lengths, seed)
    got = pooling(y, torch.tensor(lengths)).detach().numpy()
    expected = np.stack([pooled_alone(kind, pooling, y[row, :length].numpy()) for row, length in enumerate(lengths)])
    np.testing.assert_allclose(got, expected, rtol=0, atol=bound("float64", "oracle", length=TIME, magnitude=9.0))


@pytest.mark.parametrize("kind", POOLINGS)
def test_without_lengths_all_steps_count_and_no_steps_give_zeros(kind: str) -> None:
    pooling = randomize(Pooling(kind, SIZE, AHEAD).double(), 1)
    y = torch.randn(3, TIME, SIZE, dtype=torch.float64)
    assert torch.equal(pooling(y), pooling(y, torch.full((3,), TIME)))
    assert torch.equal(pooling(y[:, :0]), torch.zeros(3, pooling.output_size, dtype=torch.float64))


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(InputError, match="unknown pooling 'sum'; known: last, mean, max, attention"):
        Pooling("sum", SIZE)
