"""Prefix beam search over CTC frames as they come, with scores of a language model and of hot words.

Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using bi-directional recurrent DNNs",
arXiv:1408.2873; every frame is a few operations on arrays [prefixes, labels].
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import count_problems, is_number
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.tensors.array_likes import numbers_of

Labels = tuple[int, ...]


class LabelScorer(Protocol):
    """What a label is worth after the labels before it, on top of what the frames say.

    A row of ``state`` belongs to each prefix; what it is, is the scorer's own matter.
    """

    def start(self) -> tuple[Any, Array]:
        """(state of the empty prefix, scores of each label as the first one float64 [1, labels])."""
        ...

    def advance(self, state: Any, rows: Array, labels: Array) -> tuple[Any, Array]:
        """(state, scores [prefixes, labels]) of the prefixes at ``rows``, each with one of ``labels`` (from 0 on) added.

        A label of -1 adds nothing.
        """
        ...

    def end(self, state: Any) -> Array:
        """Scores of ending after each prefix, float64 [prefixes]."""
        ...


class Beam(NamedTuple):
    """A prefix. log_prob: of the frames, summed over their ways to say it; score: with all that scorers add."""

    labels: Labels
    log_prob: float
    score: float


class PrefixBeam:
    """The likeliest label sequences of the frames pushed so far.  Belongs to one caller at a time.

    Exact when no prefix has to be dropped.  A push that fails leaves it as it was.

    Args:
        labels: how many there are, without blank.
        beams: how many prefixes are kept at each frame.
        scorers: see :class:`LabelScorer`.
        bonus: added for every label, against a language model's liking for short texts.
    """

    def __init__(self, labels: int, beams: int, scorers: Sequence[LabelScorer] = (), bonus: float = 0.0) -> None:
        odd = [] if is_number(bonus) and math.isfinite(bonus) else [f"bonus is {bonus!r}, expected a finite number"]
        raise_all([*count_problems("labels", labels), *count_problems("beams", beams), *odd])
        self._labels, self._beams, self._scorers, self._bonus = labels, beams, tuple(scorers), bonus
        self.reset()

    def reset(self) -> None:
        """Back to the beginning."""
        self._prefixes: list[Labels] = [()]
        self._blank_end, self._label_end = np.zeros(1), np.full(1, -np.inf)
        self._added = np.zeros(1)
        started = [scorer.start() for scorer in self._scorers]
        self._states = [state for state, _ in started]
        self._next = sum((scores for _, scores in started), np.full((1, self._labels), self._bonus))

    def fork(self) -> PrefixBeam:
        """A second search that goes on from here; nothing that either does changes arrays of the other."""
        return copy.copy(self)

    def push(self, log_probs: Any) -> None:
        """Take frames, natural logarithms [time, 1 + labels], blank first."""
        frames = numbers_of(log_probs, "frames")
        if frames.ndim != 2 or frames.shape[1] != 1 + self._labels:
            raise InputError(f"frames are {list(frames.shape)}, expected [time, {1 + self._labels}], blank first")
        if np.isnan(frames).any() or (frames == np.inf).any():
            raise InputError("frames hold NaN or +infinity, expected natural logarithms of probabilities")
        ahead = self.fork()
        for t, frame in enumerate(frames):
            ahead._take(frame)
            if not ahead._prefixes:
                raise InputError(
                    f"frame {t} leaves nothing possible: its logarithms, or what scorers add, are all -infinity"
                )
        self.__dict__.update(ahead.__dict__)

    def best(self, *, ended: bool = False) -> list[Beam]:
        """The prefixes that are left, best score first; of equal ones the first in the order of labels.

        ended: nothing comes after the frames pushed so far, which scorers may like or not.
        """
        log_probs = np.logaddexp(self._blank_end, self._label_end)
        scores = log_probs + self._added
        if ended:
            scores = scores + sum(scorer.end(state) for scorer, state in zip(self._scorers, self._states, strict=True))
        found = zip(self._prefixes, log_probs.tolist(), scores.tolist(), strict=True)
        return sorted((Beam(*one) for one in found), key=lambda beam: (-beam.score, beam.labels))

    def _take(self, frame: Array) -> None:
        total = np.logaddexp(self._blank_end, self._label_end)
        last = np.array([prefix[-1] - 1 if prefix else -1 for prefix in self._prefixes])
        rows = np.arange(len(last))
        label_scores = frame[1:]
        grown = total[:, None] + label_scores
        # The same label again is a new one only after a blank.
        repeats = last >= 0
        grown[rows[repeats], last[repeats]] = self._blank_end[repeats] + label_scores[last[repeats]]
        stay_blank = total + frame[0]
        stay_label = np.where(repeats, self._label_end + label_scores[last], -np.inf)
        # A prefix that another one grows into: one sequence, one place.
        place = {prefix: row for row, prefix in enumerate(self._prefixes)}
        for row, prefix in enumerate(self._prefixes):
            parent = place.get(prefix[:-1]) if prefix else None
            if parent is not None:
                stay_label[row] = np.logaddexp(stay_label[row], grown[parent, prefix[-1] - 1])
                grown[parent, prefix[-1] - 1] = -np.inf
        stay = np.logaddexp(stay_blank, stay_label) + self._added
        gain = self._added[:, None] + self._next
        kept = _largest(np.concatenate((stay, (grown + gain).ravel())), self._beams)
        stays, grows = kept[kept < len(rows)], kept[kept >= len(rows)] - len(rows)
        parents, labels = grows // self._labels, grows % self._labels
        if len(grows):
            sources, new = np.concatenate((stays, parents)), np.concatenate((np.full(len(stays), -1), labels))
            self._advance(sources, new)
        else:
            self._advance(stays, np.full(len(stays), -1))
        none = np.full(len(grows), -np.inf)
        self._blank_end = np.concatenate((stay_blank[stays], none))
        self._label_end = np.concatenate((stay_label[stays], grown[parents, labels]))
        self._added = np.concatenate((self._added[stays], gain[parents, labels]))
        grown_prefixes = [(*self._prefixes[p], n + 1) for p, n in zip(parents.tolist(), labels.tolist(), strict=True)]
        self._prefixes = [self._prefixes[i] for i in stays.tolist()] + grown_prefixes

    def _advance(self, rows: Array, labels: Array) -> None:
        advanced = [
            scorer.advance(state, rows, labels) for scorer, state in zip(self._scorers, self._states, strict=True)
        ]
        self._states = [state for state, _ in advanced]
        self._next = sum((scores for _, scores in advanced), np.full((len(rows), self._labels), self._bonus))


def _largest(scores: Array, count: int) -> Array:
    """Places of the ``count`` largest scores that are possible, in order of place; of equal ones the first."""
    if len(scores) > count:
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
        found = np.sort(np.concatenate((above, equal[: count - len(above)])))
    else:
        found = np.arange(len(scores))
    return found[scores[found] > -np.inf]
