"""Beam search over distributions made up on the spot, against a transcription of its definition in plain Python."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime.text.beam import Found, _largest, beam_search

History = tuple[int, ...]


def distribution(row: int, history: History, vocabulary: int, seed: int) -> np.ndarray:
    """Log-probabilities of the next token: random, of its own for every history, some of them impossible."""
    random = np.random.default_rng(zlib.crc32(repr((row, history, seed)).encode()))
    scores = np.where(random.random(vocabulary) < 0.1, -np.inf, random.normal(size=vocabulary) * 2)
    scores[0] = random.normal()  # the end is always possible
    log_probs: np.ndarray = scores - np.logaddexp.reduce(scores)
    return log_probs


def searched(
    rows: int, vocabulary: int, seed: int, *, beam: int, limits: list[int], penalty: float
) -> list[list[Found]]:
    """What :func:`beam_search` finds; the states that it moves are the histories themselves."""
    states: list[tuple[int, History]] = [(row, ()) for row in range(rows)]

    def advance(chosen: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        nonlocal states
        states = [(states[i][0], (*states[i][1], t)) for i, t in zip(chosen.tolist(), tokens.tolist(), strict=True)]
        assert all(0 not in history for _, history in states), "a sequence that has ended was gone on with"
        return np.array([distribution(*state, vocabulary, seed) for state in states])

    first = np.array([distribution(*state, vocabulary, seed) for state in states])
    return beam_search(first, advance, beam=beam, end=0, limits=np.array(limits), length_penalty=penalty)


def transcribed(
    row: int, vocabulary: int, seed: int, beam: int, limit: int, penalty: float
) -> list[tuple[History, float]]:
    """Of all that is kept, ended or with each token added, keep the best: (tokens with the end, log-probability)."""
    kept: list[tuple[History, float]] = [((), 0.0)]
    for _ in range(limit):
        candidates = []
        for history, log_prob in kept:
            if history[-1:] == (0,):
                candidates.append((history, log_prob))
                continue
            for token, more in enumerate(distribution(row, history, vocabulary, seed).tolist()):
                if np.isfinite(more):
                    candidates.append(((*history, token), log_prob + more))
        kept = sorted(candidates, key=lambda one: -one[1] / len(one[0]) ** penalty)[:beam]
    return kept


@given(
    st.integers(1, 3),
    st.integers(2, 5),
    st.integers(0, 10**6),
    st.integers(1, 7),
    st.sampled_from([0.0, 0.6, 1.0]),
    st.data(),
)
def test_it_keeps_what_the_definition_keeps(
    rows: int, vocabulary: int, seed: int, beam: int, penalty: float, data: st.DataObject
) -> None:
    limits = data.draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows))
    found = searched(rows, vocabulary, seed, beam=beam, limits=limits, penalty=penalty)
    for row, own in enumerate(found):
        expected = transcribed(row, vocabulary, seed, beam, limits[row], penalty)
        assert [one.ids.tolist() for one in own] == [[t for t in history if t] for history, _ in expected]
        assert [one.log_prob for one in own] == pytest.approx([log_prob for _, log_prob in expected])
        assert sorted((one.score for one in own), reverse=True) == [one.score for one in own]


@given(st.integers(2, 4), st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([0.0, 1.0]))
def test_a_wide_beam_finds_the_best_of_all_sequences(vocabulary: int, seed: int, limit: int, penalty: float) -> None:
    best: dict[History, float] = {}
    for tokens in itertools.product(range(vocabulary), repeat=limit):
        cut = tokens[: tokens.index(0) + 1] if 0 in tokens else tokens
        steps = (distribution(0, cut[:i], vocabulary, seed)[token] for i, token in enumerate(cut))
        best[cut] = float(sum(steps)) / len(cut) ** penalty
    (found,) = searched(1, vocabulary, seed, beam=vocabulary**limit, limits=[limit], penalty=penalty)
    assert found[0].score == pytest.approx(max(best.values()))
    assert len(found) == sum(np.isfinite(score) for score in best.values())


@given(st.integers(2, 9), st.integers(0, 10**6), st.sampled_from([0.0, 0.6, 2.0]))
def test_a_beam_of_one_is_greedy_whatever_the_penalty(vocabulary: int, seed: int, penalty: float) -> None:
    history: History = ()
    while len(history) < 7 and history[-1:] != (0,):
        history = (*history, int(distribution(0, history, vocabulary, seed).argmax()))
    ((found,),) = searched(1, vocabulary, seed, beam=1, limits=[7], penalty=penalty)
    assert found.ids.tolist() == [token for token in history if token]


def test_equal_scores_are_kept_in_order_of_their_tokens() -> None:
    flat = np.log(np.full((1, 5), 0.2))
    found = beam_search(flat, lambda rows, tokens: np.repeat(flat, len(rows), 0), beam=3, end=4, limits=np.array([1]))
    assert [one.ids.tolist() for one in found[0]] == [[0], [1], [2]]


@given(st.integers(1, 9), st.integers(0, 10**6), st.integers(1, 70))
def test_of_equal_numbers_the_first_are_the_largest(beam: int, seed: int, size: int) -> None:
    values = np.random.default_rng(seed).integers(0, 4, (3, size)).astype(float)
    values[values == 0] = -np.inf
    np.testing.assert_array_equal(_largest(values, beam), np.argsort(-values, axis=1, kind="stable")[:, :beam])
