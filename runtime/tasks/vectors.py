"""How alike vectors are, and which of many are nearest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.tensors.array_likes import numbers_of

_SCORES_AT_ONCE = 1 << 22
"""Cosines held in memory at a time while many vectors are searched for: 16 MB in float32."""


class Neighbour(NamedTuple):
    """The place of a vector among those searched, and its cosine with the one asked for."""

    place: int
    similarity: float


def cosines(vectors: Any, others: Any) -> Array:
    """Cosines of vectors [..., size] with others [..., size]: a matrix [vectors, others] where both are several.

    Vectors of zeros have the cosine 0 with everything.  float64.
    """
    left, right = numbers_of(vectors, "vectors"), numbers_of(others, "others")
    if left.ndim not in (1, 2) or right.ndim not in (1, 2) or left.shape[-1] != right.shape[-1]:
        raise InputError(
            f"vectors are {list(left.shape)} and {list(right.shape)}, expected [..., size] of the same size"
        )
    return np.asarray(_unit(left) @ _unit(right).T)


def nearest(vector: Any, among: Any, count: int = 1, *, normalised: bool = False) -> Any:
    """The ``count`` vectors of ``among`` with the largest cosine, best first; of equal ones the first.

    An exact search: one matrix product and a partial sort.  For millions of vectors hand them to a library of indexes,
    such as faiss (``IndexFlatIP``) or hnswlib (``space="ip"``): what :class:`Embedder` gives has length 1 already.

    Args:
        vector: [size], or several at once, [queries, size].
        among: [vectors, size]; float32 is searched in float32, anything else in float64.
        count: how many, at least 1; all of ``among`` where it holds fewer.
        normalised: every vector has length 1, as those of :class:`Embedder` have: spares measuring ``among``, which takes
            as long as the search.

    Returns:
        A list of neighbours for one vector, a list of such lists for several.

    Raises:
        InputError: shapes that do not go together, a count below 1, or a vector that holds NaN or infinity.
    """
    raise_all(count_problems("count", count, numpy=True))
    dtype = np.float32 if getattr(among, "dtype", None) == np.float32 else np.float64
    places = among if type(among) is np.ndarray and among.dtype == dtype else numbers_of(among, "among").astype(dtype)
    queries = numbers_of(vector, "vector").astype(dtype)
    if queries.ndim not in (1, 2) or places.ndim != 2 or queries.shape[-1] != places.shape[-1]:
        raise InputError(
            f"vector is {list(queries.shape)}, among {list(places.shape)}, expected [size] or [queries, size], and "
            "[vectors, size]"
        )
    found = list(_searched(np.atleast_2d(queries), places, min(int(count), len(places)), normalised))
    return found if queries.ndim == 2 else found[0]


def _searched(queries: Array, among: Array, count: int, normalised: bool) -> Iterator[list[Neighbour]]:
    lengths = None if normalised else _lengths(among)
    rows = max(1, _SCORES_AT_ONCE // max(1, len(among)))
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows]
        # The places come first in the product: so many rows by few columns is what a matrix library is quick at.
        scores = (among @ (part if normalised else _unit(part)).T).T
        if lengths is not None:
            scores = scores / lengths
        for query, row in enumerate(scores, start):
            yield _best(np.ascontiguousarray(row), count, query)


def _best(scores: Array, count: int, query: int) -> list[Neighbour]:
    if count == 0:
        return []
    if not np.isfinite(scores).all():
        place = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(f"vector {query} or vector {place} of among holds NaN or infinity, expected finite numbers")
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    candidates = np.flatnonzero(scores >= least)  # in order of place, so that the first of equal ones wins
    order = candidates[np.argsort(-scores[candidates], kind="stable")[:count]]
    return [Neighbour(int(i), float(scores[i])) for i in order]


def _lengths(vectors: Array) -> Array:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return np.asarray(np.where(lengths > 0, lengths, 1.0), vectors.dtype)


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), vectors.dtype)
