"""``Embedder``: vectors of sequences and how alike they are, from a model file and without PyTorch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnncore.runtime.errors import InputError
from rnncore.runtime.files.layout import Array
from rnncore.runtime.tasks.task import Sequences, TaskRunner


class Neighbour(NamedTuple):
    """The place of a vector among those searched, and its cosine with the one asked for."""

    place: int
    similarity: float


class Embedder(TaskRunner):
    """A file of ``rnncore.Embedder``; see :class:`rnncore.runtime.tasks.task.TaskRunner` for what it reads.

    ::

        embedder = Embedder.load("speakers.onnx")
        known = embedder.embed_many(recordings)             # [recordings, size]
        nearest(embedder.embed(recording), known)[0]        # Neighbour(place=3, similarity=0.98)
    """

    task = "embedder"

    def embed(self, one: Any) -> Array:
        """A vector of length 1, [size]."""
        return self._run(one)

    def embed_many(self, many: Sequences, lengths: Any = None) -> Array:
        """A vector of length 1 for each of several inputs, [inputs, size]."""
        vectors = self._run_many(many, lengths)
        return np.stack(list(vectors)) if len(vectors) else np.zeros((0, self.size), np.float32)

    def similarity(self, one: Any, other: Any) -> float:
        """The cosine of two inputs: 1 for the same direction, 0 for nothing in common, -1 for the opposite."""
        return float(cosines(self.embed(one), self.embed(other)))

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        return int(self.model.signature.outputs[0].shape[-1])

    def _outputs_expected(self) -> None:
        return None


def cosines(vectors: Any, others: Any) -> Array:
    """Cosines of vectors [..., size] with others [..., size]: a matrix [vectors, others] where both are several.

    Vectors of zeros have the cosine 0 with everything.
    """
    left, right = np.asarray(vectors, np.float64), np.asarray(others, np.float64)
    if left.ndim not in (1, 2) or right.ndim not in (1, 2) or left.shape[-1] != right.shape[-1]:
        raise InputError(
            f"vectors are {list(left.shape)} and {list(right.shape)}, expected [..., size] of the same size"
        )
    return np.asarray(_unit(left) @ _unit(right).T)


def nearest(vector: Any, among: Any, count: int = 1) -> list[Neighbour]:
    """The ``count`` vectors of ``among`` [vectors, size] with the largest cosine, best first; of equal ones the first.

    Raises InputError for shapes that do not go together, or a count below 1.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"count is {count!r}, expected an integer of at least 1")
    if np.ndim(vector) != 1 or np.ndim(among) != 2:
        raise InputError(
            f"vector is {list(np.shape(vector))}, among {list(np.shape(among))}, expected [size], [vectors, size]"
        )
    found = cosines(vector, among)
    return [Neighbour(int(i), float(found[i])) for i in np.argsort(-found, kind="stable")[:count]]


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0))
