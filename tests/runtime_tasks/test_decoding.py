"""Spans, edits and CTC decoding, against brute force and against what was counted by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError, Span, count_spans, edit_distance, spans_of
from rnncore.runtime.tasks.ctc import beam_search, collapse
from tests.strategies import SEEDS
from tests.tolerances import fixed

tags = st.lists(st.sampled_from(("O", "B-x", "I-x", "B-y", "I-y", "z")), max_size=9)


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ([], []),
        (["O", "O"], []),
        (["B-x", "I-x", "O", "B-y"], [Span("x", 0, 2), Span("y", 3, 4)]),
        (["B-x", "B-x"], [Span("x", 0, 1), Span("x", 1, 2)]),
        (["I-x", "I-y", "I-y"], [Span("x", 0, 1), Span("y", 1, 3)]),
        (["B-x", "I-y"], [Span("x", 0, 1), Span("y", 1, 2)]),
        (["City", "City", "Zip"], [Span("City", 0, 2), Span("Zip", 2, 3)]),
    ],
)
def test_spans_by_hand(sequence: list[str], expected: list[Span]) -> None:
    assert spans_of(sequence) == expected


@given(tags)
def test_spans_cover_what_is_tagged_and_nothing_twice(sequence: list[str]) -> None:
    covered = [step for span in spans_of(sequence) for step in range(span.start, span.end)]
    assert covered == [i for i, tag in enumerate(sequence) if tag != "O"]
    for span in spans_of(sequence):
        first, *rest = sequence[span.start : span.end]
        assert first.removeprefix("B-").removeprefix("I-") == span.label
        assert all(tag in (f"I-{span.label}", span.label) for tag in rest)
        following = sequence[span.end : span.end + 1]
        assert following not in ([f"I-{span.label}"], [span.label])


def test_f1_by_hand() -> None:
    wanted = [["B-x", "I-x", "O"], ["B-y"], []]
    predicted = [["B-x", "I-x", "B-y"], ["B-x"], []]
    counts = count_spans(predicted, wanted)
    assert counts == (1, 3, 2)
    assert (counts.precision, counts.recall, counts.f1) == (1 / 3, 1 / 2, pytest.approx(2 / (3 + 2)))
    assert count_spans([[]], [[]]).f1 == 0.0
    with pytest.raises(InputError, match=r"lengths \[1\], the right ones \[2\]"):
        count_spans([["O"]], [["O", "O"]])


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_edits_are_the_fewest(source: str, target: str) -> None:
    def fewest(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(fewest(a[1:], b) + 1, fewest(a, b[1:]) + 1, fewest(a[1:], b[1:]) + (a[0] != b[0]))

    assert edit_distance(source, target) == edit_distance(target, source) == fewest(source, target)


def test_edits_by_hand() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance(["po", "box"], ["box"]) == 1


@given(st.integers(0, 5), st.integers(1, 3), SEEDS)
def test_a_wide_beam_search_is_brute_force(time: int, labels: int, seed: int) -> None:
    """Every label sequence, with the sum over all its alignments."""
    scores = np.random.default_rng(seed).normal(0, 2, (time, 1 + labels))
    log_probs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    sums: dict[tuple[int, ...], float] = {}
    for path in product(range(1 + labels), repeat=time):
        found = tuple(collapse(path))
        sums[found] = np.logaddexp(sums.get(found, -np.inf), log_probs[range(time), path].sum())
    beams = beam_search(log_probs, 10_000)
    assert {prefix for prefix, _ in beams} == sums.keys()
    for prefix, log_prob in beams:
        assert log_prob == pytest.approx(sums[prefix], abs=fixed("float64 sum"))
    assert [log_prob for _, log_prob in beams] == sorted((log_prob for _, log_prob in beams), reverse=True)
    narrow = beam_search(log_probs, 2)
    assert len(narrow) <= 2
    assert all(log_prob <= sums[prefix] + 1e-9 for prefix, log_prob in narrow)  # paths are lost, none is counted twice


def test_beam_search_finds_what_the_likeliest_frames_miss() -> None:
    """Two frames of blank 0.6 and "a" 0.4: the likeliest frames say nothing, the likeliest answer is "a" (0.64)."""
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert collapse([0, 0]) == []
    (best, log_prob), *_ = beam_search(log_probs, 4)
    assert (best, np.exp(log_prob)) == ((1,), pytest.approx(0.64))


def test_impossible_labels_are_never_found() -> None:
    assert beam_search(np.array([[-np.inf, 0.0, -np.inf]]), 5) == [((1,), 0.0)]
    with pytest.raises(InputError, match="beams is 0"):
        beam_search(np.zeros((1, 2)), 0)


def test_repetitions_merge_unless_a_blank_is_between() -> None:
    assert collapse([0, 1, 1, 0, 1, 2, 2, 0]) == [1, 1, 2]
    assert collapse([1, 2], previous=1) == [2]
