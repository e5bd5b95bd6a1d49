"""The nearest vectors are those that sorting all cosines gives."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore import runtime
from rnncore.runtime import InputError
from rnncore.runtime.tasks import vectors as vectors_module
from tests.strategies import SEEDS
from tests.tolerances import bound


@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 12), st.integers(0, 5), st.booleans(), SEEDS)
def test_nearest_is_a_stable_sort_of_all_cosines(
    places: int, size: int, count: int, queries: int, unit: bool, seed: int
) -> None:
    """Small integers: many cosines are equal to the last bit, and some vectors are zeros."""
    random = np.random.default_rng(seed)
    among = random.integers(-1, 2, (places, size)).astype(np.float64)
    asked = random.integers(-1, 2, (queries, size)).astype(np.float64)
    if unit:
        among, asked = (np.eye(size)[random.integers(0, size, n)] for n in (places, queries))
    found = runtime.nearest(asked, among, count, normalised=unit)
    assert len(found) == queries
    for vector, neighbours in zip(asked, found, strict=True):
        exact = np.array([_cosine(vector, other) for other in among])
        assert len(neighbours) == min(count, places)
        got = [n.similarity for n in neighbours]
        np.testing.assert_allclose(got, np.sort(exact)[::-1][:count], atol=bound("float64", "function"))
        np.testing.assert_allclose(got, exact[[n.place for n in neighbours]], atol=bound("float64", "function"))
        assert all(a.similarity > b.similarity or a.place < b.place for a, b in pairwise(neighbours))
        alone = runtime.nearest(vector, among, count, normalised=unit)
        np.testing.assert_allclose(got, [n.similarity for n in alone], atol=bound("float64", "function"))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / lengths) if lengths else 0.0


def test_of_equal_ones_the_first_and_float32_stays_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    among = np.tile(np.eye(3, dtype=np.float32), (50, 1))
    assert [n.place for n in runtime.nearest(among[1], among, 4)] == [1, 4, 7, 10]
    assert [n.place for n in runtime.nearest([3.0, 4.0], [[3, 4], [-3, -4], [0, 0], [6, 8]], 3)] == [0, 3, 2]
    many = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    at_once = runtime.nearest(many, among, 2)
    monkeypatch.setattr(vectors_module, "_SCORES_AT_ONCE", 450)  # three vectors at a time
    for one, other in zip(runtime.nearest(many, among, 2), at_once, strict=True):
        assert [n.similarity for n in one] == pytest.approx(
            [n.similarity for n in other], abs=bound("float32", "function")
        )


@pytest.mark.parametrize(
    ("vector", "among", "count", "says"),
    [
        (np.zeros(3), np.zeros((4, 2)), 1, r"vector is \[3\], among \[4, 2\]"),
        (np.zeros((1, 1, 2)), np.zeros((4, 2)), 1, "expected"),
        (np.zeros(2), np.zeros(2), 1, "expected"),
        (np.zeros(2), np.zeros((4, 2)), 0, "count is 0"),
        (np.zeros(2), np.zeros((4, 2)), True, "count is True"),
        (np.array([np.nan, 1]), np.ones((4, 2)), 1, "NaN"),
        (np.ones(2), np.array([[1, 1], [np.inf, 1]]), 1, "vector 1 of among"),
    ],
)
def test_what_cannot_be_compared_is_refused(vector: Any, among: Any, count: Any, says: str) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match=says):
        runtime.nearest(vector, among, count)
