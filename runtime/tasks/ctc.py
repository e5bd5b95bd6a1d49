"""Decoding of connectionist temporal classification: from distributions of frames to label sequences."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import raise_all

BLANK = 0
"""The number of "no label" in every CTC output."""

_NEVER = -math.inf


def collapse(path: Sequence[int], previous: int = BLANK) -> list[int]:
    """Labels of a sequence of frames: repetitions merged, blanks dropped.  ``previous`` is the frame before the first."""
    labels = []
    for label in path:
        if label != previous and label != BLANK:
            labels.append(label)
        previous = label
    return labels


def beam_search(log_probs: np.ndarray, beams: int) -> list[tuple[tuple[int, ...], float]]:
    """The likeliest label sequences, best first, by prefix beam search (Hannun et al. 2014, arXiv:1408.2873).

    Unlike the labels of the likeliest frames, which :func:`collapse` gives, it adds up all frame sequences that mean
    the same; exact when no prefix has to be dropped.

    Args:
        log_probs: natural logarithms [time, 1 + labels], blank first.
        beams: how many prefixes are kept at each frame.

    Returns:
        At most ``beams`` pairs (labels, log-probability).
    """
    raise_all(count_problems("beams", beams))
    # Prefix -> (log-probability of its frame sequences that end with a blank, of those that end with its last label).
    kept: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, _NEVER)}
    for frame in np.asarray(log_probs, np.float64):
        kept = _extended(kept, frame.tolist(), beams)
    return sorted(((prefix, _sum(*ends)) for prefix, ends in kept.items()), key=lambda one: (-one[1], one[0]))


def _extended(
    kept: dict[tuple[int, ...], tuple[float, float]], frame: list[float], beams: int
) -> dict[tuple[int, ...], tuple[float, float]]:
    """The prefixes after one more frame, of which ``beams`` survive."""
    by_blank: dict[tuple[int, ...], float] = defaultdict(lambda: _NEVER)
    by_label: dict[tuple[int, ...], float] = defaultdict(lambda: _NEVER)
    scores = [(label, score) for label, score in enumerate(frame) if label != BLANK and score > _NEVER]
    blank = frame[BLANK]
    for prefix, (blank_end, label_end) in kept.items():
        total = _sum(blank_end, label_end)
        by_blank[prefix] = _sum(by_blank[prefix], total + blank)
        last = prefix[-1] if prefix else BLANK
        if last != BLANK:
            by_label[prefix] = _sum(by_label[prefix], label_end + frame[last])
        for label, score in scores:
            longer = (*prefix, label)
            # The same label again is a new one only after a blank.
            by_label[longer] = _sum(by_label[longer], (blank_end if label == last else total) + score)
    ends: dict[tuple[int, ...], tuple[float, float]] = {
        prefix: (by_blank[prefix], by_label[prefix])
        for prefix in [*by_blank, *(p for p in by_label if p not in by_blank)]
    }
    best = sorted(ends.items(), key=lambda one: (-_sum(*one[1]), one[0]))[:beams]
    return {prefix: both for prefix, both in best if _sum(*both) > _NEVER}


def _sum(a: float, b: float) -> float:
    """``log(exp(a) + exp(b))``."""
    if a < b:
        a, b = b, a
    return a if b == _NEVER else a + math.log1p(math.exp(b - a))
