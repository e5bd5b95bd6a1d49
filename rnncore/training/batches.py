"""Contiguous batches: each row of a batch goes on where the same row of the batch before stopped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rnncore.runtime.errors import InputError
from rnncore.runtime.vocabulary import Vocabulary


def token_stream(texts: Sequence[str], vocabulary: Vocabulary) -> np.ndarray:
    """All texts in one line, int64 [tokens]: ``<eos>`` before the first, between two, and after the last."""
    eos = np.array([vocabulary.eos_id], np.int64)
    parts = [eos]
    for text in texts:
        parts += [vocabulary.encode(text), eos]
    return np.concatenate(parts)


class ContiguousBatches:
    """A stream of tokens cut into ``batch`` rows, and the rows into pieces of ``bptt`` steps.

    Row b reads tokens b * length to (b + 1) * length of the stream, so a state carried from piece to piece belongs to
    the right text.  The up to ``batch`` - 1 tokens that do not fill a row are left out.

    Args:
        stream: token ids, int64 [tokens].
        batch: number of rows.
        bptt: steps of a piece; the last piece may be shorter.

    Raises:
        InputError: fewer tokens than rows.
    """

    def __init__(self, stream: np.ndarray, batch: int, bptt: int) -> None:
        length = (len(stream) - 1) // batch
        if length < 1:
            raise InputError(
                f"the training texts have {len(stream)} tokens, too few for a batch of {batch}: "
                f"use a batch of at most {max(1, len(stream) - 1)} or more text"
            )
        used = torch.from_numpy(stream[: batch * length + 1])
        self._inputs = used[:-1].view(batch, length)
        self._targets = used[1:].view(batch, length)
        self._bptt = bptt
        self.tokens = batch * length

    def __len__(self) -> int:
        """Number of pieces."""
        return -(-self._inputs.shape[1] // self._bptt)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Piece ``index``: (what is read, what comes next), both int64 [batch, up to bptt]."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        steps = slice(index * self._bptt, (index + 1) * self._bptt)
        return self._inputs[:, steps].contiguous(), self._targets[:, steps].contiguous()
