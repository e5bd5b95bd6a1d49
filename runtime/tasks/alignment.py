"""Which frames said which label: the likeliest way through the frames that means given labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rnncore.runtime.counts import is_whole
from rnncore.runtime.errors import InputError
from rnncore.runtime.tensors.array_likes import numbers_of


class TimedLabel(NamedTuple):
    """A label, said by the frames ``start`` to ``end`` (not included); their mean log-probability."""

    label: int
    start: int
    end: int
    log_prob: float


def align(log_probs: Any, labels: Sequence[int]) -> list[TimedLabel]:
    """The frames of each label on the likeliest path (Viterbi search over labels with blanks between).

    Args:
        log_probs: natural logarithms [time, 1 + labels], blank first.
        labels: numbers from 1 on, in order.

    Raises:
        InputError: a label is out of range or no integer, frames are NaN or no numbers, or there are fewer frames than
            labels (and blanks between equal ones).
    """
    frames, wanted = numbers_of(log_probs, "log_probs"), list(labels)
    if not wanted:
        return []
    odd = [label for label in wanted if not is_whole(label)]
    if odd:
        raise InputError(f"labels hold {odd[0]!r}, expected integers from 1 on")
    if np.isnan(frames).any():
        raise InputError("log_probs hold NaN, expected natural logarithms of probabilities")
    if frames.ndim != 2 or min(wanted) < 1 or max(wanted) >= frames.shape[1]:
        raise InputError(f"labels are {wanted[:9]}, expected 1 to {frames.shape[-1] - 1}, frames {list(frames.shape)}")
    needed = len(wanted) + sum(a == b for a, b in pairwise(wanted))
    if len(frames) < needed:
        raise InputError(f"{len(frames)} frames cannot say {len(wanted)} labels: expected at least {needed}")
    path = _likeliest_places(frames, np.array(wanted))
    found = []
    for number, label in enumerate(wanted):
        own = np.flatnonzero(path == 2 * number + 1)
        start, end = int(own[0]), int(own[-1]) + 1
        found.append(TimedLabel(label, start, end, float(frames[start:end, label].mean())))
    return found


def _likeliest_places(frames: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each frame its place in blank, label, blank, label, ..., blank."""
    places = np.zeros(2 * len(labels) + 1, np.int64)
    places[1::2] = labels
    skips = np.zeros(len(places), bool)  # over a blank, from a label to another one
    skips[3::2] = labels[1:] != labels[:-1]
    score = np.full(len(places), -np.inf)
    score[:2] = frames[0, places[:2]]
    back = np.zeros((len(frames), len(places)), np.int64)
    none = np.full(2, -np.inf)
    for t in range(1, len(frames)):
        before = np.stack(
            (
                score,
                np.concatenate((none[:1], score[:-1])),
                np.where(skips, np.concatenate((none, score[:-2])), -np.inf),
            )
        )
        back[t] = before.argmax(0)
        score = before.max(0) + frames[t, places]
    place = len(places) - 1 if score[-1] > score[-2] else len(places) - 2
    path = np.zeros(len(frames), np.int64)
    for t in range(len(frames) - 1, -1, -1):
        path[t] = place
        place -= back[t, place]
    return path
