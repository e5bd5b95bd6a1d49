"""``Rater``: one number for a sequence (many-to-one), such as a rating from 1 to 5."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.models.pooling import Pooling
from rnncore.models.reader_config import ReaderConfig
from rnncore.models.task_model import Metrics, TaskModel, pad_sequences
from rnncore.runtime.errors import InputError
from rnncore.runtime.tasks.task import BOUNDS_KEY


class Rater(TaskModel):
    r"""Recurrent layers, pooling over time, and a number between two bounds.

    .. math:: r = \mathrm{low} + (\mathrm{high} - \mathrm{low}) \, \sigma(w^\top \mathrm{pool}(y) + b)

    Parameters: ``reader.*``, ``pooling.*``; ``head.weight`` [1, features], ``head.bias`` [1].

    Args:
        config: what it reads, and through which layers.
        low, high: the bounds, which a rating comes near but never reaches.
        pooling: "last", "mean", "max", "attention" or "statistics", as for :class:`rnncore.models.Classifier`.
    """

    task = "rater"
    output_name = "rating"

    def __init__(self, config: ReaderConfig, low: float, high: float, *, pooling: str = "last") -> None:
        super().__init__(config)
        if not -float("inf") < low < high < float("inf"):
            raise InputError(f"low is {low} and high is {high}, expected finite numbers, low below high")
        self.low, self.high = low, high
        self.pooling = Pooling(pooling, self.reader.output_size, self.reader.forward_size)
        self.head = nn.Linear(self.pooling.output_size, 1)

    @property
    def streams(self) -> bool:
        """As for every model; and only the last step's features are known before the end."""
        return super().streams and self.pooling.kind == "last"

    def file_metadata(self) -> dict[str, str]:
        """As for every model, and the bounds."""
        return {**super().file_metadata(), BOUNDS_KEY: json.dumps([self.low, self.high])}

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Ratings [batch]; arguments as of ``Reader``."""
        score = self.head(self.pooling(self.reader(x, lengths), lengths)).squeeze(1)
        return self.low + (self.high - self.low) * torch.sigmoid(score)

    def collate(self, examples: Sequence[tuple[Any, float]]) -> dict[str, Tensor]:
        """A padded batch of examples (sequence [time] or [time, features], rating)."""
        sequences, ratings = zip(*examples, strict=True)
        x, lengths = pad_sequences(sequences)
        return {"x": x, "lengths": lengths, "targets": torch.tensor(ratings, dtype=self.head.bias.dtype)}

    def loss(self, x: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Tensor, int]:  # type: ignore[override]
        """Squared error against ``targets`` [batch], summed; and the number of sequences."""
        return (self(x, lengths) - targets).square().sum(), len(targets)

    @torch.no_grad()
    def metrics(self, x: Tensor, lengths: Tensor, targets: Tensor) -> Metrics:  # type: ignore[override]
        """``absolute_error``, mean over sequences."""
        return {"absolute_error": (float((self(x, lengths) - targets).abs().sum()), len(targets))}
