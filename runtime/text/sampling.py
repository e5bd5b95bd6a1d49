"""From log-probabilities to one drawn token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnncore.runtime.counts import is_number, is_whole
from rnncore.runtime.errors import raise_all


def check_sampling(
    temperature: float, top_k: int | None, top_p: float | None, seed: int | Sequence[int] | None = None
) -> None:
    """Raise InputError that lists every option that is no number, or out of range."""
    problems = []
    if not (is_number(temperature) and 0.0 <= temperature < float("inf")):
        problems.append(f"temperature is {temperature!r}, expected 0 (always the likeliest token) or more")
    if top_k is not None and not (is_whole(top_k) and top_k >= 1):
        problems.append(f"top_k is {top_k!r}, expected at least 1, or None for all tokens")
    if top_p is not None and not (is_number(top_p) and 0.0 < top_p <= 1.0):
        problems.append(f"top_p is {top_p!r}, expected above 0 and at most 1, or None for all tokens")
    seeds: Sequence[Any] = seed if isinstance(seed, list | tuple) else [0 if seed is None else seed]
    if not all(is_whole(one) and one >= 0 for one in seeds):
        problems.append(f"seed is {seed!r}, expected an integer of at least 0, or None for another one each time")
    raise_all(problems)


def sampling_probabilities(
    log_probs: np.ndarray,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rejected: Sequence[int] = (),
) -> np.ndarray:
    """The distribution to draw the next token from, float64 [vocabulary], summing to 1.

    Applied in this order: tokens in ``rejected`` get no probability, and the others share theirs, which is what drawing
    again until another token comes amounts to; the log-probabilities are divided by ``temperature`` (0: all mass on the
    likeliest token); all but the ``top_k`` likeliest tokens are dropped; then all but the smallest set of likeliest
    tokens whose mass reaches ``top_p``.  Between equally likely tokens the lower id wins.

    Raises:
        InputError: an option is out of range.
    """
    check_sampling(temperature, top_k, top_p)
    scores = np.asarray(log_probs, np.float64)
    if len(rejected):
        scores = scores.copy()
        scores[list(rejected)] = -np.inf
    order = np.argsort(-scores, kind="stable")
    if temperature == 0.0:
        top_k = 1
    else:
        # Shifted before the division: the likeliest token keeps exponent 0 at any temperature, however small.
        with np.errstate(over="ignore"):  # to -inf, an impossible token, which is what a tiny temperature makes of it
            scores = (scores - scores[order[0]]) / temperature
    kept = order[:top_k]
    probabilities = np.exp(scores[kept] - scores[kept[0]])
    probabilities /= probabilities.sum()
    if top_p is not None:
        # The mass before each token: a token is needed as long as those above it have not reached top_p.
        before = np.cumsum(probabilities) - probabilities
        needed = before < top_p
        kept, probabilities = kept[needed], probabilities[needed]
        probabilities /= probabilities.sum()
    result = np.zeros(scores.shape[0])
    result[kept] = probabilities
    return result


def draw(probabilities: np.ndarray, generator: np.random.Generator) -> int:
    """One token id, drawn from ``probabilities`` [vocabulary] with one random number."""
    return token_at(probabilities, generator.random())


def token_at(probabilities: np.ndarray, uniform: float) -> int:
    """The token under which ``uniform``, 0 to 1, falls when ``probabilities`` [vocabulary] are laid side by side."""
    cumulative = np.cumsum(probabilities)
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(index, int(np.flatnonzero(probabilities)[-1]))
