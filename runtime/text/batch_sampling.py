"""Several sequences drawn side by side: each step is one call for all that have not ended."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.model import Model
from rnncore.runtime.text.sampling import sampling_probabilities, token_at


class Uniforms:
    """Random numbers from 0 to below 1: row by row those of ``numpy.random.default_rng(seed).random((sequences, most))``.

    Each is drawn when it is asked for, so that ``most`` may be as large as a caller likes who means "until it ends".
    """

    def __init__(self, seed: int | Sequence[int] | None, sequences: int, most: int) -> None:
        source = np.random.SeedSequence(seed)
        self.most = int(most)
        self._rows = [np.random.Generator(np.random.PCG64(source).advance(i * self.most)) for i in range(sequences)]

    def following(self, row: int) -> float:
        """The next number of a sequence."""
        return self._rows[row].random()


def sample_side_by_side(
    model: Model,
    begun: Sequence[Array],
    conditions: Sequence[Sequence[Any]],
    uniforms: Uniforms,
    end: int,
    options: dict[str, Any],
) -> list[list[int]]:
    """Token ids that follow on each beginning, until its ``end``, which is left out.

    Args:
        model: the first input is token ids [time], the only output log-probabilities of the next token.
        begun: ids of each sequence, at least one.
        conditions: of each sequence the other inputs, the same at every step.
        uniforms: for each sequence, at most so many tokens.
        end: the token that ends a sequence.
        options: of :func:`rnncore.runtime.text.sampling.sampling_probabilities`.
    """
    written: list[list[int]] = [[] for _ in begun]
    with ExitStack() as stack:
        streams = [stack.enter_context(model.stream()) for _ in begun]
        read: dict[int, Any] = dict(enumerate(begun))
        for _ in range(uniforms.most):
            if not read:
                break
            chunks = [(ids, *conditions[i]) if len(conditions[i]) else ids for i, ids in read.items()]
            outputs = model.push_many([streams[i] for i in read], chunks)
            following: dict[int, Any] = {}
            for i, output in zip(read, outputs, strict=True):
                token = token_at(sampling_probabilities(output[-1], **options), uniforms.following(i))
                if token != end:
                    written[i].append(token)
                    following[i] = [token]
            read = following
    return written
