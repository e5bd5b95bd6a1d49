"""The nearest vectors are those that sorting all cosines gives."""

from __future__ import annotations

from itertools import combinations, pairwise
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


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.none() | st.floats(0, 1), SEEDS)
def test_a_calibrated_threshold_is_the_best_of_all_that_could_be(
    labels: list[int], false_accepts: float | None, seed: int
) -> None:
    """Small integers, so that many cosines are equal; counted pair by pair."""
    vectors = np.random.default_rng(seed).integers(-1, 2, (len(labels), 3)).astype(np.float64)
    pairs = list(combinations(range(len(labels)), 2))
    cosine = {pair: float(runtime.cosines(vectors, vectors)[pair]) for pair in pairs}
    alike = [cosine[i, j] for i, j in pairs if labels[i] == labels[j]]
    unlike = [cosine[i, j] for i, j in pairs if labels[i] != labels[j]]
    if not alike or not unlike:
        with pytest.raises(InputError, match="expected at least two labels, one of them with two vectors"):
            runtime.calibrate(vectors, labels, false_accepts=false_accepts)
        return

    def counted(threshold: float) -> tuple[float, float]:
        return sum(c >= threshold for c in unlike) / len(unlike), sum(c < threshold for c in alike) / len(alike)

    found = runtime.calibrate(vectors, labels, false_accepts=false_accepts)
    assert (found.false_accepts, found.false_rejects) == pytest.approx(counted(found.similarity))
    others = [counted(threshold) for threshold in [*alike, *unlike, 2.0]]
    if false_accepts is None:
        assert abs(found.false_accepts - found.false_rejects) == pytest.approx(min(abs(a - r) for a, r in others))
    else:
        allowed = [r for a, r in others if a <= false_accepts]
        assert found.false_accepts <= false_accepts
        assert found.false_rejects == pytest.approx(min(allowed))


@pytest.mark.parametrize(
    ("vectors", "labels", "message"),
    [
        (np.zeros((3, 2)), ["a", "b"], "expected .vectors, size. and as many"),
        (np.full((3, 2), np.nan), ["a", "a", "b"], "NaN or infinity"),
    ],
)
def test_a_threshold_of_nonsense_is_refused(vectors: np.ndarray, labels: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        runtime.calibrate(vectors, labels)
    with pytest.raises(InputError, match="false_accepts is 2"):
        runtime.calibrate(np.eye(3), ["a", "a", "b"], false_accepts=2)


def test_indexes_of_other_libraries_find_the_same_neighbours() -> None:
    """faiss and hnswlib take the vectors as they are; hnswlib's approximate search is exact on so few."""
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    random = np.random.default_rng(0)
    vectors = random.standard_normal((300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = runtime.nearest(vectors[:20], vectors, 5, normalised=True)
    wanted = [[one.place for one in neighbours] for neighbours in exact]
    index = faiss.IndexFlatIP(16)
    index.add(vectors)
    similarities, places = index.search(vectors[:20], 5)
    assert places.tolist() == wanted
    expected = [[one.similarity for one in neighbours] for neighbours in exact]
    np.testing.assert_allclose(similarities, expected, atol=bound("float32", "function"))
    hnswlib = pytest.importorskip("hnswlib", reason="hnswlib is not installed: it is compiled when installed")
    graph = hnswlib.Index(space="ip", dim=16)
    graph.init_index(max_elements=300, random_seed=1)
    graph.add_items(vectors, num_threads=1)
    graph.set_ef(300)
    places, distances = graph.knn_query(vectors[:20], 5, num_threads=1)
    assert places.tolist() == wanted
    np.testing.assert_allclose(1 - distances, expected, atol=bound("float32", "function"))
