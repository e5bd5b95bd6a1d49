"""Interpolated Kneser-Ney n-grams of token ids, counted in NumPy: tables that a model of any kind can look up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, raise_all

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class NgramLevel:
    """What comes after every context of one length; C contexts with E successors in all.

    stream, ends, length: context c is ``stream[ends[c] - length : ends[c]]``; ``<eos>`` is the beginning of a text.
    backoff: float64 [C], what is left for the distribution after the context without its oldest token.
    first: int64 [C + 1]; those of context c are the entries first[c] to first[c + 1].
    tokens, masses: of the entries, int64 and float64 [E]: ``P(w | c) = masses + backoff[c] P(w | shorter c)``.
    occurrences: int64 [C], how often the texts go on after the context.
    """

    stream: Ids
    ends: Ids
    length: int
    backoff: NDArray[np.float64]
    first: Ids
    tokens: Ids
    masses: NDArray[np.float64]
    occurrences: Ids

    @property
    def contexts(self) -> Ids:
        """int64 [C, length], the oldest token first."""
        return self.stream[self.ends[:, None] + np.arange(-self.length, 0)]

    @property
    def widest(self) -> int:
        """Most different tokens after one context."""
        return int(np.diff(self.first).max(initial=0))

    def seen(self, least: int) -> NgramLevel:
        """Only the contexts that occur at least so often; after the others the shorter context is asked."""
        kept = self.occurrences >= least
        sizes = np.diff(self.first)
        entries = np.repeat(kept, sizes)
        first = np.concatenate(([0], np.cumsum(sizes[kept])))
        return replace(
            self,
            ends=self.ends[kept],
            backoff=self.backoff[kept],
            first=first,
            tokens=self.tokens[entries],
            masses=self.masses[entries],
            occurrences=self.occurrences[kept],
        )

    def narrowed(self, most: int) -> NgramLevel:
        """Only the likeliest ``most`` successors of each context; what the others had is left to the shorter context."""
        sizes = np.diff(self.first)
        if self.widest <= most:
            return self
        context = np.repeat(np.arange(len(sizes)), sizes)
        rank = np.empty_like(context)
        rank[np.lexsort((-self.masses, context))] = np.arange(len(context)) - np.repeat(self.first[:-1], sizes)
        kept = rank < most
        lost = np.bincount(context, np.where(kept, 0.0, self.masses), len(sizes))
        first = np.concatenate(([0], np.cumsum(np.minimum(sizes, most))))
        return replace(
            self, backoff=self.backoff + lost, first=first, tokens=self.tokens[kept], masses=self.masses[kept]
        )


def count_ngrams(
    texts: Sequence[Ids],
    order: int,
    *,
    eos_id: int,
    vocabulary_size: int,
    most_entries: int | None = None,
    most_successors: int | None = None,
) -> tuple[NgramLevel, ...]:
    """Modified Kneser-Ney (Chen and Goodman 1998), interpolated, its discounts estimated from the counts of counts.

    Args:
        texts: token ids of each, int64 [tokens], without ``<eos>``; each begins after it and ends with it.
        order: the longest n-gram: the last ``order - 1`` tokens tell what comes next.
        eos_id: id of ``<eos>``.
        vocabulary_size: number of tokens; those never seen share what is left at last.
        most_entries: keep the tables small: contexts of two or more tokens that occur least often are left out, those of
            one occurrence first, until no more n-grams than these are kept.  None keeps all.
        most_successors: keep only so many likeliest tokens after each context but the empty one.  None keeps all.

    Returns:
        One level for each length of context from 0 to ``order - 1``.

    Raises:
        InputError: there is no text, an id is out of range, or a number is out of range.
    """
    problems = count_problems("order", order)
    for name, most in (("most_entries", most_entries), ("most_successors", most_successors)):
        if most is not None:
            problems += count_problems(name, most)
    raise_all(problems)
    stream = _stream(texts, eos_id, vocabulary_size)
    grams = _grams(stream, order, eos_id, vocabulary_size)
    levels = [_level(stream, grams, k, vocabulary_size) for k in range(order)]
    if most_successors is not None:
        levels = [levels[0], *(level.narrowed(most_successors) for level in levels[1:])]
    return tuple(levels if most_entries is None else _pruned(levels, most_entries))


@dataclass(frozen=True)
class _Grams:
    """The different n-grams of one length: how often each occurs, where first, and which one ends at every target.

    ``after_eos`` says which begin with ``<eos>``; ``of_target`` is -1 where the text has too few tokens before.
    """

    keys: Ids
    first: Ids
    counts: Ids
    after_eos: NDArray[np.bool_]
    of_target: Ids


def _stream(texts: Sequence[Ids], eos_id: int, vocabulary_size: int) -> Ids:
    eos = np.array([eos_id], np.int64)
    if not len(texts):
        raise InputError("there are no texts to count n-grams in")
    stream = np.concatenate([eos, *(part for text in texts for part in (np.asarray(text, np.int64), eos))])
    if stream.min() < 0 or stream.max() >= vocabulary_size:
        raise InputError(f"the ids are {stream.min()} to {stream.max()}, expected 0 to {vocabulary_size - 1}")
    return stream


def _grams(stream: Ids, order: int, eos_id: int, vocabulary_size: int) -> list[_Grams]:
    """Of 1 to ``order`` tokens; targets are the tokens of ``stream`` but the first, and no n-gram reaches over ``<eos>``."""
    targets = np.arange(1, len(stream))
    beginnings = np.flatnonzero(stream == eos_id)
    known = targets - beginnings[np.searchsorted(beginnings, targets) - 1]  # tokens before each, <eos> included
    context = np.zeros(len(targets), np.int64)
    found = []
    for length in range(order):
        places = np.flatnonzero(known >= length)
        if length:
            longer = context[places] * vocabulary_size + stream[targets[places] - length]
            context[places] = np.unique(longer, return_inverse=True)[1]
        keys, first, number, counts = np.unique(
            context[places] * vocabulary_size + stream[targets[places]],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        of_target = np.full(len(targets), -1)
        of_target[places] = number
        first = places[first]
        found.append(_Grams(keys, first, counts, known[first] == length, of_target))
    return found


def _level(stream: Ids, grams: Sequence[_Grams], length: int, vocabulary_size: int) -> NgramLevel:
    own = grams[length]
    counts = own.counts
    if length + 1 < len(grams):  # how many different tokens stand before; at the beginning of a text nothing can
        counts = np.bincount(own.of_target[grams[length + 1].first], minlength=len(own.keys))
        counts = counts + np.where(own.after_eos & (length > 0), own.counts, 0)
    context, tokens = np.divmod(own.keys, vocabulary_size)
    last = context[-1:] + 1  # none, if no text is so long
    first = np.flatnonzero(np.diff(context, prepend=-1, append=last)) if len(last) else np.zeros(1, np.int64)
    totals = np.add.reduceat(counts, first[:-1])
    taken = _discounts(counts)[np.minimum(counts, 3)]
    backoff = np.add.reduceat(taken, first[:-1]) / totals
    ends = own.first[first[:-1]] + 1
    masses = (counts - taken) / np.repeat(totals, np.diff(first))
    occurrences = np.add.reduceat(own.counts, first[:-1])
    return NgramLevel(stream, ends, length, backoff, first, tokens, masses, occurrences)


def _discounts(counts: Ids) -> NDArray[np.float64]:
    """What is taken from counts of 0, 1, 2, and 3 or more."""
    of = np.bincount(np.minimum(counts, 5), minlength=6)
    if not of[1] or not of[2]:
        return np.array((0.0, 0.5, 1.0, 1.5))
    share = of[1] / (of[1] + 2.0 * of[2])
    taken = [0.0, share]
    for k in (2, 3):
        estimate = k - (k + 1) * share * of[k + 1] / of[k] if of[k] else 0.5 * k
        taken.append(min(float(k), max(0.0, estimate)))
    return np.array(taken)


def _pruned(levels: Sequence[NgramLevel], most_entries: int) -> list[NgramLevel]:
    least = 1
    kept = list(levels)
    while sum(len(level.tokens) for level in kept) > most_entries and any(len(level.tokens) for level in kept[2:]):
        least += 1
        kept = [level if level.length < 2 else level.seen(least) for level in levels]
    return kept
