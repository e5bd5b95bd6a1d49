"""From which similarity on two inputs are taken for alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import is_number
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.tasks.vectors import cosines
from rnncore.runtime.tensors.array_likes import numbers_of


class Threshold(NamedTuple):
    """Two inputs of at least this ``similarity`` are taken for alike.

    ``false_accepts``: part of the unlike pairs that are taken for alike; ``false_rejects``: part of the alike pairs that
    are not; both as counted when it was chosen.
    """

    similarity: float
    false_accepts: float
    false_rejects: float


def calibrate(vectors: Any, labels: Sequence[Hashable], *, false_accepts: float | None = None) -> Threshold:
    """The threshold for vectors like these, from all pairs of them: those of one label are alike, all others are not.

    Use vectors of labels that training has not seen: those that it has seen are told apart more easily.

    Args:
        vectors: [vectors, size].
        labels: one for each.
        false_accepts: accept as many as possible while no larger part of the unlike pairs is accepted; None for the
            threshold at which false accepts and false rejects are nearest to each other (the equal error rate).

    Raises:
        InputError: shapes that do not fit, values that are not finite, no two of a label or no two labels, or
            ``false_accepts`` outside 0 to 1.
    """
    alike, unlike = _scores(vectors, labels)
    if false_accepts is not None and not (is_number(false_accepts) and 0 <= false_accepts <= 1):
        raise InputError(f"false_accepts is {false_accepts!r}, expected a part of the unlike pairs, from 0 to 1")
    # Only what occurs can change the counts; one above all accepts nothing.
    candidates = np.append(np.unique(np.concatenate((alike, unlike))), np.nextafter(max(alike[-1], unlike[-1]), np.inf))
    accepted = 1.0 - np.searchsorted(unlike, candidates, side="left") / len(unlike)
    rejected = np.searchsorted(alike, candidates, side="left") / len(alike)
    if false_accepts is None:
        best = int(np.argmin(np.abs(accepted - rejected)))
    else:
        best = int(np.argmax(accepted <= false_accepts))
    return Threshold(float(candidates[best]), float(accepted[best]), float(rejected[best]))


def _scores(vectors: Any, labels: Sequence[Hashable]) -> tuple[Array, Array]:
    """Cosines of the pairs of one label, and of all others, each sorted."""
    rows = numbers_of(vectors, "vectors")
    names = list(labels)
    odd = [name for name in names if not isinstance(name, Hashable)]
    if odd:
        raise InputError(f"labels hold a {type(odd[0]).__name__}, expected strings, numbers or the like")
    problems = []
    if rows.ndim != 2 or len(rows) != len(names):
        problems.append(
            f"vectors are {list(rows.shape)} with {len(names)} labels, expected [vectors, size] and as many"
        )
    elif not np.isfinite(rows).all():
        problems.append("vectors hold NaN or infinity, expected finite numbers")
    raise_all(problems)
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    group = np.array([numbers[name] for name in names], np.int64)
    above = np.triu_indices(len(rows), 1)
    same = group[above[0]] == group[above[1]]
    if not same.any() or same.all():
        raise InputError(
            f"{len(names)} vectors have {len(numbers)} labels, expected at least two labels, one of them with two vectors"
        )
    scores = cosines(rows, rows)[above]
    return np.sort(scores[same]), np.sort(scores[~same])
