"""Several sequences drawn side by side: each step is one call for all that have not ended."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from rnncore.runtime.arrays import Array
from rnncore.runtime.model import Model
from rnncore.runtime.text.sampling import sampling_probabilities, token_at


def sample_side_by_side(
    model: Model,
    begun: Sequence[Array],
    conditions: Sequence[Sequence[Any]],
    uniforms: Array,
    end: int,
    options: dict[str, Any],
) -> list[list[int]]:
    """Token ids that follow on each beginning, until its ``end``, which is left out.

    Args:
        model: the first input is token ids [time], the only output log-probabilities of the next token.
        begun: ids of each sequence, at least one.
        conditions: of each sequence the other inputs, the same at every step.
        uniforms: random numbers from 0 to below 1, [sequences, most tokens].
        end: the token that ends a sequence.
        options: of :func:`rnncore.runtime.text.sampling.sampling_probabilities`.
    """
    written: list[list[int]] = [[] for _ in begun]
    with ExitStack() as stack:
        streams = [stack.enter_context(model.stream()) for _ in begun]
        read: dict[int, Any] = dict(enumerate(begun))
        for step in range(uniforms.shape[1]):
            if not read:
                break
            chunks = [(ids, *conditions[i]) if len(conditions[i]) else ids for i, ids in read.items()]
            outputs = model.push_many([streams[i] for i in read], chunks)
            following: dict[int, Any] = {}
            for i, output in zip(read, outputs, strict=True):
                token = token_at(sampling_probabilities(output[-1], **options), float(uniforms[i, step]))
                if token != end:
                    written[i].append(token)
                    following[i] = [token]
            read = following
    return written
