"""Confusion matrices, maps of embeddings, spoken letters: the numbers behind the pictures, and what they say."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore.plots.confusion import confusion_counts, plot_confusion
from rnncore.plots.embedding_map import plot_embedding_map, principal_plane
from rnncore.plots.spoken import plot_spoken, spoken_labels
from rnncore.plots.text_gates import TextGates, liveliest_units
from rnncore.runtime.errors import InputError
from rnncore.runtime.tasks.ctc import collapse
from tests.strategies import SEEDS
from tests.tolerances import bound

LABELS = ("a", "b", "c")


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1))
def test_confusion_counts_every_pair(pairs: list[tuple[str, str]]) -> None:
    wanted, found = zip(*pairs, strict=True)
    counts = confusion_counts(wanted, found, LABELS)
    assert {(LABELS[i], LABELS[j]): n for (i, j), n in np.ndenumerate(counts) if n} == Counter(pairs)


@given(st.integers(2, 20), st.integers(1, 6), SEEDS)
def test_the_plane_is_that_of_the_largest_variances(rows: int, size: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((rows, size)) * np.arange(1, size + 1)
    points, shares = principal_plane(vectors)
    variances = np.sort(np.atleast_1d(np.linalg.eigvalsh(np.atleast_2d(np.cov(vectors.T, bias=True)))))[::-1]
    expected = np.append(variances, 0.0)[:2]
    allowed = bound("float64", "oracle", length=rows, magnitude=max(1.0, float(variances.sum())))
    np.testing.assert_allclose(points.var(0), expected, atol=allowed)
    np.testing.assert_allclose(shares, expected / variances.sum(), atol=allowed)


@given(st.integers(1, 12), SEEDS)
def test_spoken_labels_are_those_of_the_likeliest_path_at_their_surest_step(steps: int, seed: int) -> None:
    log_probs = np.random.default_rng(seed).standard_normal((steps, 4))
    said = spoken_labels(log_probs)
    best = log_probs.argmax(1)
    assert [label for label, _ in said] == collapse(best.tolist())
    places = [place for _, place in said]
    assert places == sorted(places)
    for label, place in said:
        assert best[place] == label
        for neighbour in (place - 1, place + 1):
            if 0 <= neighbour < steps and best[neighbour] == label:
                assert log_probs[neighbour, label] <= log_probs[place, label]


def test_units_that_count_or_saturate_are_no_lively_ones() -> None:
    """Of two texts: a counter, one that has saturated and swings, one that stands still, and one that follows the text."""
    time = 12

    def text(seed: int) -> TextGates:
        values = torch.zeros(time, 4)
        values[:, 0] = torch.linspace(-1.0, 1.0, time)
        values[:, 1] = 30.0 + 20.0 * torch.rand(time, generator=torch.Generator().manual_seed(seed))
        values[:, 3] = 0.2 * torch.randn(time, generator=torch.Generator().manual_seed(seed))
        return TextGates("", ("a",) * time, {"c": values})

    assert text(1).strongest_units(1, "c") == [3]
    assert liveliest_units([text(1), text(2)], 1, "c") == [3]
    assert text(1).strongest_units(2, "c") == [0, 3]


def test_pictures_say_what_they_show(tmp_path: Path) -> None:
    plot_confusion(["x", "x", "y"], ["x", "z", "y"], tmp_path / "confusion.svg", title="test & co")
    drawn = (tmp_path / "confusion.svg").read_text()
    assert "<!-- test &amp; co: 66.7% of 3 right -->" in drawn
    assert all(f"<!-- {label} -->" in drawn for label in ("x", "y", "z", "right", "answered"))
    plot_embedding_map(np.eye(4), ["p", "q", "q", "p"], tmp_path / "map.svg", title="four")
    drawn = (tmp_path / "map.svg").read_text()
    assert "first principal component (33% of the spread)" in drawn
    assert all(f"<!-- {label} -->" in drawn for label in ("p", "q", "four"))
    answers = np.log(np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]))
    plot_spoken(np.zeros((9, 5)), answers, ["h", " "], tmp_path / "spoken.svg", seconds=0.5, title="h and a blank")
    drawn = (tmp_path / "spoken.svg").read_text()
    assert all(f"<!-- {label} -->" in drawn for label in ("h", "␣", "no letter", "h and a blank"))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda out: plot_confusion([], [], out), "0 right labels and 0 answers"),
        (lambda out: plot_confusion(["a"], ["b"], out, labels=["a"]), "expected b among them"),
        (lambda out: plot_embedding_map(np.eye(2), ["a"], out), r"\[2, 2\] with 1 labels"),
        (lambda out: plot_embedding_map(np.full((2, 2), math.nan), ["a", "b"], out), "finite numbers"),
        (lambda out: plot_spoken(np.zeros((3, 2)), np.zeros((3, 2)), ["a", "b"], out, seconds=1), r"\[steps, 3\]"),
        (lambda out: plot_spoken(np.zeros((3, 2)), np.zeros((3, 3)), ["a", "b"], out, seconds=0), "seconds is 0"),
    ],
)
def test_what_cannot_be_drawn_is_named(tmp_path: Path, draw: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw(tmp_path / "no.svg")
    assert not list(tmp_path.iterdir())
