"""``Embedder``: a vector of length 1 for a sequence, near to those of its like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.models.pooling import Pooling
from rnncore.models.reader_config import ReaderConfig
from rnncore.models.task_model import Metrics, TaskModel, pad_sequences
from rnncore.runtime.errors import InputError


class Embedder(TaskModel):
    r"""Recurrent layers, pooling over time, a linear map, and division by the vector's length.

    .. math:: e = \frac{W \, \mathrm{pool}(y) + b}{\lVert W \, \mathrm{pool}(y) + b \rVert_2}

    Trained by the supervised contrastive loss (Khosla et al. 2020, arXiv:2004.11362, equation 2): for every sequence i
    of a batch that shares its label with others, P(i),

    .. math:: -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log
        \frac{\exp(e_i \cdot e_p / \tau)}{\sum_{a \ne i} \exp(e_i \cdot e_a / \tau)}

    Parameters: ``reader.*``, ``pooling.*``; ``head.weight`` [size, features], ``head.bias`` [size].

    Args:
        config: what it reads, and through which layers.
        size: numbers of a vector.
        pooling: "last", "mean", "max" or "attention", as for :class:`rnncore.models.Classifier`.
        temperature: the loss's tau.
    """

    task = "embedder"
    output_name = "embedding"

    def __init__(self, config: ReaderConfig, size: int, *, pooling: str = "mean", temperature: float = 0.1) -> None:
        super().__init__(config)
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}, expected a number above 0")
        self.temperature = temperature
        self.pooling = Pooling(pooling, self.reader.output_size, self.reader.forward_size)
        self.head = nn.Linear(self.reader.output_size, size)

    @property
    def streams(self) -> bool:
        """As for every model; and only the last step's features are known before the end."""
        return super().streams and self.pooling.kind == "last"

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Vectors of length 1, [batch, size]; arguments as of ``Reader``."""
        return functional.normalize(self.head(self.pooling(self.reader(x, lengths), lengths)), dim=1)

    def batch_label(self, example: tuple[Any, str | int]) -> str | int:
        """The label of an example: the loss compares it with others of its label, so ``fit`` puts them into one batch."""
        return example[1]

    def collate(self, examples: Sequence[tuple[Any, str | int]]) -> dict[str, Tensor]:
        """A padded batch of examples (sequence [time] or [time, features], label); equal labels are of one kind."""
        sequences, labels = zip(*examples, strict=True)
        numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
        x, lengths = pad_sequences(sequences)
        return {"x": x, "lengths": lengths, "targets": torch.tensor([numbers[label] for label in labels])}

    def loss(self, x: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Tensor, int]:  # type: ignore[override]
        """The contrastive loss summed over the sequences that share their label, int64 [batch]; and their number."""
        vectors = self(x, lengths)
        itself = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
        scores = (vectors @ vectors.t() / self.temperature).masked_fill(itself, -torch.inf)
        log_probs = functional.log_softmax(scores, 1).masked_fill(itself, 0.0)
        alike = (targets[:, None] == targets) & ~itself
        mates = alike.sum(1)
        terms = -(log_probs * alike).sum(1) / mates.clamp(min=1)
        return terms.sum(), int((mates > 0).sum())

    @torch.no_grad()
    def metrics(self, x: Tensor, lengths: Tensor, targets: Tensor) -> Metrics:  # type: ignore[override]
        """``nearest``: how often the nearest other vector of the batch is of the same label, where one is there."""
        vectors = self(x, lengths)
        similarity = (vectors @ vectors.t()).fill_diagonal_(-torch.inf)
        alike = targets[:, None] == targets
        has_mate = alike.sum(1) > 1
        right = (targets[similarity.argmax(1)] == targets) & has_mate
        return {"nearest": (float(right.sum()), int(has_mate.sum()))}
