"""Spans, edits and CTC decoding, against brute force and against what was counted by hand."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError, Span, count_spans, edit_distance, spans_of
from rnncore.runtime.tasks.alignment import align
from rnncore.runtime.tasks.ctc import beam_search, collapse
from rnncore.runtime.tasks.endpointing import Endpointer, Endpointing
from rnncore.runtime.tasks.hot_words import HotWords
from rnncore.runtime.tasks.prefix_beam import PrefixBeam
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
    assert edit_distance([["a"], ["b"], ["c"]], [["b"], ["d"]]) == 2, "symbols that do not hash"
    assert edit_distance(iter("kitten"), "") == edit_distance("", "kitten") == 6  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 3), min_size=55, max_size=140), st.lists(st.integers(0, 3), max_size=90))
def test_edits_of_long_sequences_are_those_of_the_table(source: list[int], target: list[int]) -> None:
    """More rows than a word of the machine has bits."""
    table = np.zeros((len(source) + 1, len(target) + 1), int)
    table[:, 0], table[0] = np.arange(len(source) + 1), np.arange(len(target) + 1)
    for i, left in enumerate(source):
        for j, right in enumerate(target):
            around = table[i, j] + (left != right), table[i, j + 1] + 1, table[i + 1, j] + 1
            table[i + 1, j + 1] = min(around)
    assert edit_distance(source, target) == edit_distance(np.array(source), np.array(target)) == table[-1, -1]


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


class Bigrams:
    """A scorer that remembers the last label: what it adds depends on what was said."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    def start(self) -> tuple[Any, np.ndarray]:
        return np.zeros(1, np.int64), self.table[:1, 1:]

    def advance(self, state: Any, rows: np.ndarray, labels: np.ndarray) -> tuple[Any, np.ndarray]:
        after = np.where(labels >= 0, labels + 1, state[rows])
        return after, self.table[after, 1:]

    def end(self, state: Any) -> np.ndarray:
        return self.table[state, 0]


@given(st.integers(0, 5), SEEDS, st.lists(st.integers(0, 3), max_size=4))
def test_a_search_with_scorers_is_brute_force_and_chunks_are_the_whole(time: int, seed: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    scores, table = random.normal(0, 2, (time, 3)), random.normal(0, 2, (3, 3))
    log_probs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    sums: dict[tuple[int, ...], float] = {}
    for path in product(range(3), repeat=time):
        found = tuple(collapse(path))
        sums[found] = np.logaddexp(sums.get(found, -np.inf), log_probs[range(time), path].sum())
    search = PrefixBeam(2, 1000, [Bigrams(table)], bonus=0.25)
    for part in np.split(log_probs, sorted(min(cut, time) for cut in cuts)):
        twin = search.fork()
        search.push(part)
        twin.push(part[:1])
    added = {
        found: sum(table[a, b] for a, b in pairwise((0, *found)))
        + 0.25 * len(found)
        + table[found[-1] if found else 0, 0]
        for found in sums
    }
    beams = search.best(ended=True)
    assert {beam.labels for beam in beams} == sums.keys()
    for beam in beams:
        assert beam.log_prob == pytest.approx(sums[beam.labels], abs=fixed("float64 sum"))
        assert beam.score == pytest.approx(sums[beam.labels] + added[beam.labels], abs=fixed("float64 sum"))


words_said = st.lists(st.text("ab ", min_size=1, max_size=4).filter(lambda word: word.strip() == word), max_size=3)


@given(words_said, st.text("ab ", max_size=9))
def test_hot_words_get_what_they_are_worth_and_give_back_the_rest(words: list[str], text: str) -> None:
    """Label by label the same as counting where the whole text has a hot word, at the beginning of a word."""
    labels = ("a", "b", " ")
    scorer = HotWords({word: 1.0 + len(word) for word in words}, labels)
    state, gains = scorer.start()
    total = 0.0
    for character in text:
        label = labels.index(character)
        total += gains[0, label]
        state, gains = scorer.advance(state, np.array([0]), np.array([label]))
    total += scorer.end(state)[0]
    said = any(f" {word}" in f" {text}" for word in words)
    assert total > 1e-9 if said else abs(total) < fixed("float64 sum")
    if len(words) == 1 and " " not in words[0] and not any(words[0] in part[1:] for part in text.split(" ")):
        starts = [part for part in text.split(" ") if part.startswith(words[0])]
        assert total == pytest.approx(len(starts) * len(words[0]) * (1.0 + len(words[0])))


@given(st.integers(1, 6), SEEDS)
def test_an_alignment_is_the_likeliest_of_all_paths(time: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    log_probs = np.log(random.dirichlet(np.ones(3), time))
    path = random.integers(0, 3, time).tolist()
    labels = collapse(path)
    found = align(log_probs, labels)
    assert [one.label for one in found] == labels
    own = np.zeros(time, np.int64)
    for one in found:
        own[one.start : one.end] = one.label
        assert one.log_prob == pytest.approx(log_probs[one.start : one.end, one.label].mean())
    assert collapse(own.tolist()) == labels
    best = max(
        log_probs[range(time), other].sum() for other in product(range(3), repeat=time) if collapse(other) == labels
    )
    assert log_probs[range(time), own].sum() == pytest.approx(best)


def test_endpoints_by_hand() -> None:
    rules = Endpointing(after_speech=2, without_speech=4, longest=7)
    assert Endpointer(rules).push(np.array([0, 0, 0, 0, 0])) == 4
    assert Endpointer(rules).push(np.array([0, 0, 1, 0, 1, 1, 0])) == 7
    ends = Endpointer(rules)
    assert [ends.push(np.array(part, np.int64)) for part in ([0, 1], [], [0, 1], [0], [0, 3])] == [None] * 4 + [1]
    ends.reset()
    assert ends.push(np.array([0, 0, 0])) is None


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: PrefixBeam(2, 3).push(np.zeros((2, 2))), r"expected \[time, 3\]"),
        (lambda: PrefixBeam(1, 3).push(np.full((1, 2), np.nan)), "NaN"),
        (lambda: PrefixBeam(1, 3).push(np.array([[0.0, 0.0], [-np.inf, -np.inf]])), "frame 1 leaves nothing possible"),
        (lambda: HotWords({"ax": 1.0, "": 2.0, "a": np.inf}, "ab"), "3 problems"),
        (lambda: align(np.zeros((2, 2)), [1, 1]), "2 frames cannot say 2 labels: expected at least 3"),
        (lambda: align(np.zeros((2, 2)), [2]), "expected 1 to 1"),
        (lambda: Endpointing(0, 1, -1), "2 problems"),
    ],
)
def test_what_is_wrong_is_said(ask: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()
