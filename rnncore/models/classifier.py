"""``Classifier``: one label for a sequence (many-to-one)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.models.label_smoothing import check_label_smoothing, smoothed_nll
from rnncore.models.pooling import Pooling
from rnncore.models.reader_config import ReaderConfig
from rnncore.models.task_model import Metrics, TaskModel, pad_sequences
from rnncore.runtime.errors import InputError


class Classifier(TaskModel):
    r"""Recurrent layers, pooling over time, linear head.

    .. math:: \log P(\mathrm{label} \mid x) = \log \mathrm{softmax}(W \, \mathrm{pool}(y) + b)

    Parameters: ``reader.*``; ``pooling.*``, see :class:`rnncore.models.Pooling`; ``head.weight`` [labels, features],
    ``head.bias`` [labels].

    Args:
        config: what it reads, and through which layers.
        labels: at least two.
        pooling: "last", "mean", "max", "attention" or "statistics".  With "last" and one direction the file streams: it
            says what it makes of the sequence so far.
        label_smoothing: part of every target that is shared out to all labels, while training.
    """

    task = "classifier"
    output_name = "log_probs"

    def __init__(
        self, config: ReaderConfig, labels: Sequence[str], *, pooling: str = "last", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(config, labels)
        check_label_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing
        if len(self.labels) < 2:
            raise InputError(f"labels are {list(self.labels)}, expected at least two to tell apart")
        self.pooling = Pooling(pooling, self.reader.output_size, self.reader.forward_size)
        self.head = nn.Linear(self.pooling.output_size, len(self.labels))

    @property
    def streams(self) -> bool:
        """As for every model; and only the last step's features are known before the end."""
        return super().streams and self.pooling.kind == "last"

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Natural-log probabilities [batch, labels]; arguments as of ``Reader``."""
        return functional.log_softmax(self.head(self.pooling(self.reader(x, lengths), lengths)), 1)

    def collate(self, examples: Sequence[tuple[Any, str]]) -> dict[str, Tensor]:
        """A padded batch of examples (sequence [time] or [time, features], label)."""
        sequences, labels = zip(*examples, strict=True)
        x, lengths = pad_sequences(sequences)
        return {"x": x, "lengths": lengths, "targets": torch.tensor([self.label_id(label) for label in labels])}

    def loss(self, x: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Tensor, int]:  # type: ignore[override]
        """Negative log-likelihood of ``targets``, int64 [batch], summed; and the number of sequences; smoothed in training."""
        return smoothed_nll(self(x, lengths), targets, self.label_smoothing, self.training).sum(), len(targets)

    @torch.no_grad()
    def metrics(self, x: Tensor, lengths: Tensor, targets: Tensor) -> Metrics:  # type: ignore[override]
        """``accuracy``."""
        return {"accuracy": (float((self(x, lengths).argmax(1) == targets).sum()), len(targets))}
