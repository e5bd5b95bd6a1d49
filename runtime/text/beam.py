"""Beam search: the likeliest sequences that can be found by keeping a few beginnings of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.text.token_scorer import Ids

Advance = Callable[[NDArray[np.intp], Ids], Array]
"""(rows of the last call, token that each goes on with) -> log-probabilities of the next token [rows, vocabulary]."""

MOST_BEAMS = 1024
"""Places of a beam; a search keeps a state, and a log-probability of every token, for each of them."""


class Found(NamedTuple):
    """One sequence: its ids int64 [tokens] without the end, its log-probability, the end included if it has one, and
    the score it is ranked by.
    """

    ids: Ids
    log_prob: float
    score: float


def beam_search(
    first: Array, advance: Advance, *, beam: int, end: int, limits: Ids, length_penalty: float = 0.0
) -> list[list[Found]]:
    """The ``beam`` best sequences found for each row of ``first``, best first.

    At every step, of all sequences kept so far (those that have ended as they are, the others with each token added) the
    ``beam`` with the highest score are kept.  The score is log P / n^length_penalty for n tokens, the end included.  With
    a beam of 1 that is greedy decoding, whatever the penalty; with a beam that nothing falls out of, the search is exact.

    Args:
        first: log-probabilities of the first token, [rows, vocabulary].
        advance: goes on.  It is asked for sequences that have not ended only.
        beam: sequences kept for each row.
        end: the token that ends a sequence.
        limits: int64 [rows], most tokens, the end included; a sequence that reaches it stays without an end.
        length_penalty: 0 ranks by probability, which favours short sequences; 1 by the mean over tokens.
    """
    search = _Search(len(first), beam, end, limits, length_penalty)
    log_probs, slots = first, np.full((len(first), beam), -1)
    slots[:, 0] = np.arange(len(first))
    while (slots >= 0).any():
        parents, tokens = search.step(log_probs, slots)
        rows = np.take_along_axis(slots, parents, 1)
        going = ~search.closed
        slots = np.full(going.shape, -1)
        slots[going] = np.arange(int(going.sum()))
        if going.any():
            log_probs = advance(rows[going], tokens[going])
    return search.results()


class _Search:
    """The kept sequences: [rows, beam] of everything, and which of them are closed: at their end or limit, or no one."""

    def __init__(self, rows: int, beam: int, end: int, limits: Ids, length_penalty: float) -> None:
        self.end, self.limits, self.penalty = end, limits, length_penalty
        self.log_prob = np.full((rows, beam), -np.inf)
        self.log_prob[:, 0] = 0.0
        self.size = np.zeros((rows, beam), np.int64)  # tokens, the end included
        self.count = np.zeros((rows, beam), np.int64)  # tokens without it
        self.ids = np.zeros((rows, beam, 0), np.int64)
        self.closed = np.ones((rows, beam), bool)
        self.closed[:, 0] = limits <= 0

    def step(self, log_probs: Array, slots: NDArray[np.intp]) -> tuple[NDArray[np.intp], Ids]:
        """Add a token to every open sequence and keep the best; returns where each came from, and its token.

        log_probs: [calls, vocabulary], and ``slots`` [rows, beam] tells which of these are each sequence's.
        """
        rows, beam = self.closed.shape
        vocabulary = log_probs.shape[1]
        candidates = np.full((rows, beam, vocabulary), -np.inf)
        candidates[~self.closed] = self.log_prob[~self.closed, None] + log_probs[slots[~self.closed]]
        candidates[self.closed, self.end] = self.log_prob[self.closed]
        sizes = np.where(self.closed, self.size, self.size + 1)
        scores = self._score(candidates, sizes[:, :, None]).reshape(rows, -1)
        best = _largest(scores, beam)
        parents, tokens = best // vocabulary, best % vocabulary

        was_closed = np.take_along_axis(self.closed, parents, 1)
        self.log_prob = np.take_along_axis(candidates.reshape(rows, -1), best, 1)
        self.size = np.take_along_axis(sizes, parents, 1)
        written = ~was_closed & (tokens != self.end)
        self.count = np.take_along_axis(self.count, parents, 1) + written
        self.ids = np.concatenate((np.take_along_axis(self.ids, parents[:, :, None], 1), tokens[:, :, None]), 2)
        full = self.size >= self.limits[:, None]
        self.closed = was_closed | (tokens == self.end) | full | ~np.isfinite(self.log_prob)
        return parents, tokens

    def results(self) -> list[list[Found]]:
        """What is kept, best first; places that nothing possible fills are left out."""
        scores = self._score(self.log_prob, self.size)
        return [
            [
                Found(self.ids[i, k, : self.count[i, k]].copy(), float(self.log_prob[i, k]), float(scores[i, k]))
                for k in np.argsort(-scores[i], kind="stable")
                if np.isfinite(self.log_prob[i, k])
            ]
            for i in range(len(scores))
        ]

    def _score(self, log_prob: Array, size: Any) -> Array:
        score: Array = log_prob / np.maximum(size, 1) ** self.penalty
        return score


def _largest(values: Array, count: int) -> NDArray[np.intp]:
    """Where the ``count`` largest of each row are, largest first, the first of equal ones first; [rows, count]."""
    count = min(count, values.shape[1])
    values = np.where(np.isnan(values), -np.inf, values)
    least = -np.partition(-values, count - 1, axis=1)[:, count - 1 : count]
    # Of those that equal the least one there may be more than there is room for: a partition would take any of them.
    above, equal = values > least, values == least
    room = count - above.sum(axis=1, keepdims=True)
    chosen = np.nonzero(above | (equal & (equal.cumsum(axis=1) <= room)))[1].reshape(len(values), count)
    order = np.argsort(-np.take_along_axis(values, chosen, 1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, 1)
