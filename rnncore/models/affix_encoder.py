"""``AffixEncoder``: features of a word from its first and last letters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnncore.runtime.errors import InputError
from rnncore.runtime.text.affixes import Affixes


class AffixEncoder(nn.Module):
    r"""Embeddings of the letters, side by side, through one layer: :math:`\tanh(W [v_1; \ldots; v_n] + b)`.

    A letter counts for what it is and where it stands, as in the prefixes and suffixes of hand-made features.

    Parameters: ``embedding.weight`` [letters, letter_size], ``linear.weight`` [size, width * letter_size], ``linear.bias``.

    Args:
        affixes: which letters.
        size: features of a word.
        letter_size: features of a letter.
    """

    def __init__(self, affixes: Affixes, size: int = 64, letter_size: int = 16) -> None:
        super().__init__()
        self.affixes = affixes
        self.embedding = nn.Embedding(affixes.size, letter_size)
        self.linear = nn.Linear(affixes.width * letter_size, size)

    def forward(self, letters: Tensor) -> Tensor:
        """[batch, time, size] for int64 [batch, time, width]."""
        if letters.dim() != 3 or letters.shape[2] != self.affixes.width or letters.is_floating_point():
            raise InputError(
                f"letters are {letters.dtype} {list(letters.shape)}, expected int64 [batch, time, {self.affixes.width}]"
            )
        return torch.tanh(self.linear(self.embedding(letters).flatten(2)))
