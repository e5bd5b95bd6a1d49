"""Decoding of connectionist temporal classification: from distributions of frames to label sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnncore.runtime.tasks.prefix_beam import PrefixBeam
from rnncore.runtime.tensors.array_likes import numbers_of

BLANK = 0
"""The number of "no label" in every CTC output."""


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
    frames = numbers_of(log_probs, "frames")
    search = PrefixBeam(max(1, frames.shape[-1] - 1) if frames.ndim else 1, beams)
    search.push(frames)
    return [(beam.labels, beam.log_prob) for beam in search.best()]
