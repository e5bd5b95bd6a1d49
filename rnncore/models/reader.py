"""``Reader``: token ids or floats in, features of every step out; the common part of the models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnncore.layers import Bidirectional, Recurrent, RecurrentLayer, Stacked
from rnncore.layers.dropout import dropout
from rnncore.models.reader_config import ReaderConfig
from rnncore.runtime.errors import InputError


class Reader(nn.Module):
    """Embedding, or standardisation of floats, then recurrent layers.

    Parameters: ``embedding.weight`` [vocabulary_size, embedding_size] for token ids, or the buffers ``mean`` and
    ``scale`` [features] for floats (see :meth:`standardise`); ``stack.layers.<i>.*``.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ReaderConfig, extra_features: int = 0) -> None:
        """``extra_features`` are added to every step by whoever calls the reader, see ``extra`` of :meth:`forward`."""
        super().__init__()
        self.config = config
        if config.vocabulary_size is not None:
            width = config.embedding_size
            self.embedding: nn.Embedding | None = nn.Embedding(config.vocabulary_size, width)
            nn.init.normal_(self.embedding.weight)
        else:
            assert config.features is not None
            width = config.features
            self.embedding = None
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("scale", torch.ones(width))
        width += extra_features
        layers: list[RecurrentLayer] = []
        for cell in config.cells:
            if config.bidirectional:
                layers.append(Bidirectional(cell.build(width), cell.build(width), weight_drop=config.weight_drop))
            else:
                layers.append(Recurrent(cell.build(width), weight_drop=config.weight_drop))
            width = layers[-1].output_size
        self.stack = Stacked(layers, dropout=config.dropout, variational=config.variational)
        self.output_size = width
        self.forward_size = width // 2 if config.bidirectional else width
        """Features of the output that come from the forward direction; they are the first ones."""

    def forward(self, x: Tensor, lengths: Tensor | None = None, extra: Tensor | None = None) -> Tensor:
        """Features of every step, zero beyond the lengths.

        Args:
            x: int64 [batch, time] or float [batch, time, features].
            lengths: int64 [batch], valid steps of each row; padding holds anything (ids any id below vocabulary_size).
            extra: [batch, extra_features], joined to the input of every step, or [batch, time, extra_features].

        Returns:
            [batch, time, output_size].
        """
        if self.embedding is not None:
            if x.dim() != 2 or x.is_floating_point():
                raise InputError(f"x is {x.dtype} {list(x.shape)}, expected token ids int64 [batch, time]")
            x = self._dropped(self.embedding(x))
        else:
            if x.dim() != 3 or x.shape[2] != self.config.features or not x.is_floating_point():
                expected = f"expected floats [batch, time, {self.config.features}]"
                raise InputError(f"x is {x.dtype} {list(x.shape)}, {expected}")
            x = (x - self.mean) * self.scale
        if extra is not None:
            if extra.dim() == 2:
                extra = extra.unsqueeze(1).expand(-1, x.shape[1], -1)
            x = torch.cat((x, extra), 2)
        y, _ = self.stack(x, None, lengths)
        return self._dropped(y)

    def _dropped(self, y: Tensor) -> Tensor:
        return dropout(y, self.config.dropout, self.training, variational=self.config.variational)

    def standardise(self, sequences: Iterable[Any]) -> None:
        """Have every feature of ``sequences``, floats [time_i, features] each, read with mean 0 and deviation 1.

        Mean and scale are part of the model and of its file, so that whoever runs it hands in the numbers as they are.
        """
        if self.embedding is not None:
            raise InputError("this model reads token ids: only floats can be standardised")
        rows = np.concatenate([np.asarray(sequence, np.float64) for sequence in sequences])
        if rows.ndim != 2 or rows.shape[1] != self.config.features or not len(rows):
            raise InputError(f"the sequences join to {list(rows.shape)}, expected [steps, {self.config.features}]")
        deviation = rows.std(0)
        self.mean.copy_(torch.from_numpy(rows.mean(0)))
        self.scale.copy_(torch.from_numpy(1.0 / np.where(deviation > 0, deviation, 1.0)))
