"""``Embedder``: vectors of sequences and how alike they are, from a model file and without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.batching.windows import Progress
from rnncore.runtime.errors import InputError
from rnncore.runtime.tasks.claims import unit_vector_problem
from rnncore.runtime.tasks.task import SequenceRunner, Sequences
from rnncore.runtime.tasks.vectors import cosines
from rnncore.runtime.tensors.array_likes import as_array
from rnncore.runtime.tensors.lengths import read_lengths
from rnncore.runtime.text.columns import text_of


class Embedder(SequenceRunner):
    """A file of ``rnncore.Embedder``; see :class:`rnncore.runtime.tasks.task.TaskRunner` for what it reads.

    ::

        embedder = Embedder.load("speakers.onnx")
        known = embedder.embed_many(recordings)             # [recordings, size]
        nearest(embedder.embed(recording), known)[0]        # Neighbour(place=3, similarity=0.98)
        nearest(embedder.embed_many(others), known, 10, normalised=True)    # ten for each of them
    """

    task = "embedder"

    def embed(self, one: Any) -> Array:
        """A vector of length 1, [size]; of a list or column of texts one for each, [texts, size]."""
        texts = self._several(one)
        return self._run(one) if texts is None else self.embed_many(texts)

    def embed_many(self, many: Sequences, lengths: Any = None, *, progress: Progress | None = None) -> Array:
        """A vector of length 1 for each of several inputs, [inputs, size].

        progress: called after each 1024 inputs, and at the end, with the number of inputs and of steps done so far.
        """
        if progress is None:
            vectors = self._run_many(many, lengths)
        else:
            vectors = list(self.embed_iter(self._one_by_one(many, lengths), progress=progress))
        return np.stack(list(vectors)) if len(vectors) else np.zeros((0, self.size), np.float32)

    def embed_iter(
        self,
        inputs: Iterable[Any],
        *,
        read: Callable[[Any], Any] | None = None,
        window: int = 1024,
        progress: Progress | None = None,
    ) -> Iterator[Array]:
        """The vector of each input, [size], in order, as they are ready: for more than fits into memory.

        ::

            paths = sorted(folder.glob("*.npy"))
            for path, vector in zip(paths, embedder.embed_iter(paths, read=np.load, progress=print)):
                index.add(vector[None])

        Args:
            inputs: what :meth:`embed` takes, or anything that ``read`` makes such of: paths, keys of a database.
            read: called with each of ``inputs``; what it raises is noted with its place and passed on.
            window: so many are read ahead, to run those of like length together.  Memory is that of one window.
            progress: called after each window with the number of inputs and of steps done so far.
        """
        read_all = (self._read(self._fetched(one, i, read), f"input {i}: ") for i, one in enumerate(inputs))
        return self.model.run_iter(read_all, window=window, progress=progress)

    def _one_by_one(self, many: Sequences, lengths: Any) -> list[Any]:
        if text_of(many) is not None:
            raise InputError("got one text where several inputs are expected: put it in a list")
        rows = self._rows(many)
        if rows is None:
            padded = as_array(many)
            if padded.ndim < 2:
                raise InputError(f"the input is {list(padded.shape)}, expected [inputs, time, ...]")
            if lengths is None:
                return list(padded)
            return [row[:length] for row, length in zip(padded, read_lengths(lengths, *padded.shape[:2]), strict=True)]
        if lengths is not None:
            raise InputError("lengths go with a padded array only: each item of a list brings its own length")
        return rows

    def similarity(self, one: Any, other: Any) -> float:
        """The cosine of two inputs: 1 for the same direction, 0 for nothing in common, -1 for the opposite."""
        vectors = self.embed(one), self.embed(other)
        if any(vector.ndim > 1 for vector in vectors):
            raise InputError(
                "similarity compares two inputs, a list of texts is several: use cosines(embed(a), embed(b))"
            )
        return float(cosines(*vectors))

    @staticmethod
    def _fetched(one: Any, number: int, read: Callable[[Any], Any] | None) -> Any:
        if read is None:
            return one
        try:
            return read(one)
        except Exception as error:
            error.add_note(f"while reading input {number}: {one!r:.200}")
            raise

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        return int(self.model.signature.outputs[0].shape[-1])

    def _outputs_expected(self) -> None:
        return None

    def _problem_of(self, answer: Array) -> str:
        return unit_vector_problem(answer)
