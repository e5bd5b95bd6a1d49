"""Which wrong answers an embedder takes for right ones: what its next training should see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnncore.models import Embedder
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.tasks.vectors import nearest


def hard_negatives(
    model: Embedder, pairs: Sequence[tuple[Any, ...]], count: int = 1, *, skip: int = 0
) -> list[tuple[Any, ...]]:
    """Each pair with ``count`` hard negatives behind it: those of the other pairs' likes that ``model`` puts nearest.

    For an :class:`rnncore.Embedder` with ``loss="ranking"``; train, mine, and train again.  What is equal to either of a
    pair is never its negative.  (``loss="triplet"`` needs no mining: it takes the hardest of each batch.)

    Args:
        model: as trained so far.
        pairs: (sequence, its like); hard negatives of before are dropped.
        count: negatives of each pair.
        skip: pass over so many of the nearest, where some of them may be alike after all.

    Returns:
        (sequence, its like, negative, ...) for each pair, in order.

    Raises:
        InputError: too few different likes.
    """
    raise_all([*count_problems("count", count), *count_problems("skip", skip, 0)])
    first, second = ([np.asarray(pair[part]) for pair in pairs] for part in (0, 1))
    vectors, likes = (model.vectors(part).cpu().numpy() for part in (first, second))
    found = []
    for number, vector in enumerate(vectors):
        negatives: list[int] = []
        wanted = count + skip + 1
        while len(negatives) < count + skip:
            if wanted > 2 * len(pairs):
                raise InputError(f"pair {number} has {len(negatives)} likes of others, expected {count + skip}")
            places = [one.place for one in nearest(vector, likes, wanted, normalised=True)]
            own = (first[number], second[number])
            negatives = [i for i in places if not any(np.array_equal(second[i], one) for one in own)]
            wanted *= 2
        found.append((*pairs[number][:2], *(pairs[i][1] for i in negatives[skip : skip + count])))
    return found
