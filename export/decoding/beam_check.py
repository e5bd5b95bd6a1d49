"""Beam search over the PyTorch model, from its definition: no states, no tensors of places, every sequence read anew."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from rnncore.export.decoding.bounds import Bounds
from rnncore.export.decoding.tally import Tally
from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import VerificationError
from rnncore.runtime.text.beam import Found

Tokens = tuple[int, ...]
After = Callable[[list[Tokens]], Array]
"""Beginnings, all of one length -> log-probabilities [beginnings, vocabulary] of the token after each."""


class BeamRules(NamedTuple):
    """Of one search: the token that ends a sequence, sequences kept, most tokens, length penalty, tokens never written."""

    end: int
    beam: int
    limit: int
    penalty: float
    rejected: tuple[int, ...] = ()


def best_of(after: After, rules: BeamRules) -> tuple[list[tuple[Tokens, float]], float]:
    """What :func:`rnncore.runtime.text.beam.beam_search` finds.

    Returns:
        (tokens, the end included, and log-probability of each, best first; by how much the score of anything that was
        kept is ahead of the next one, where that is least).
    """
    end, beam, limit, penalty, rejected = rules

    def rank(one: tuple[Tokens, float]) -> float:
        return _score(*one, penalty)

    kept: list[tuple[Tokens, float]] = [((), 0.0)]
    gap = math.inf
    for _ in range(limit):
        going = [tokens for tokens, _ in kept if tokens[-1:] != (end,)]
        if not going:
            break
        following = dict(zip(going, after(going), strict=True))
        candidates = [one for one in kept if one[0] not in following]
        for tokens, log_prob in kept:
            if tokens in following:
                own = following[tokens].copy()
                own[list(rejected)] = -np.inf
                # No sequence has more heirs than there are places.
                likeliest = np.argsort(-own, kind="stable")[: beam + 1]
                heirs = [((*tokens, int(token)), log_prob + float(own[token])) for token in likeliest]
                candidates += [one for one in heirs if one[1] > -math.inf]
        ranked = heapq.nlargest(beam + 1, candidates, key=rank)
        gap = min([gap, *(a - b for a, b in pairwise(map(rank, ranked)))])
        kept = ranked[:beam]
    return kept, gap


def check_found(found: list[Found], after: After, rules: BeamRules, bounds: Bounds) -> Tally:
    """Compare what a file found for one source with the search over PyTorch.

    Returns:
        One close decision if some was closer than rounding, which leaves only the log-probabilities to compare.

    Raises:
        VerificationError: says what differs.
    """
    end, beam, limit, penalty, _ = rules
    tolerance = bounds.log_prob
    expected, gap = best_of(after, rules)
    tally = Tally(close=int(gap <= bounds.decision * limit))
    if len(found) != len(expected):
        raise VerificationError(f"a beam of {beam} finds {len(found)} targets where the model has {len(expected)}")
    for rank, (one, (wanted, wanted_log_prob)) in enumerate(zip(found, expected, strict=True)):
        ids = tuple(one.ids.tolist())
        tokens = ids if len(ids) == limit else (*ids, end)
        log_prob = wanted_log_prob if tokens == wanted else _log_prob(after, tokens)
        error = abs(one.log_prob - log_prob)
        if not error <= tolerance * max(1.0, abs(log_prob)) * len(tokens):
            raise VerificationError(f"a beam of {beam} gives target {rank} a log-probability that is {error:.3g} wrong")
        score = _score(tokens, one.log_prob, penalty)
        if not abs(one.score - score) <= tolerance * max(1.0, abs(score)):
            raise VerificationError(
                f"a beam of {beam} gives target {rank} the score {one.score:.6g}, expected {score:.6g}"
            )
        if tokens != wanted and not tally.close:
            raise VerificationError(
                f"a beam of {beam} writes tokens {list(tokens)} at rank {rank} where the model gives {list(wanted)}"
            )
        tally = tally.plus(Tally(len(tokens), max_abs=error))
    return tally


def _log_prob(after: After, tokens: Tokens) -> float:
    return sum(float(after([tokens[:i]])[0, token]) for i, token in enumerate(tokens))


def _score(tokens: Tokens, log_prob: float, penalty: float) -> float:
    return log_prob / float(max(1, len(tokens)) ** penalty)
