"""``Tagger``: a label for every step (many-to-many of equal length)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.layers.base import valid_steps
from rnncore.models.reader_config import ReaderConfig
from rnncore.models.task_model import Metrics, TaskModel, pad_sequences
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.tasks.spans import count_spans


class Tagger(TaskModel):
    r"""Recurrent layers, and a linear head at every step.

    .. math:: \log P(\mathrm{tag}_t \mid x) = \log \mathrm{softmax}(W y_t + b)

    With one step a sequence it is the notes' one-to-one network.

    Parameters: ``reader.*``, see :class:`rnncore.models.Reader`; ``head.weight`` [tags, features], ``head.bias`` [tags].

    Args:
        config: what it reads, and through which layers; bidirectional as a rule, unless it has to stream.
        labels: the tags.  ``B-x``, ``I-x`` and ``O`` mark spans; so do equal tags side by side, see
            :mod:`rnncore.runtime.tasks.spans`.
    """

    task = "tagger"
    output_name = "log_probs"

    def __init__(self, config: ReaderConfig, labels: Sequence[str]) -> None:
        super().__init__(config, labels)
        if not self.labels:
            raise InputError("labels is empty: a tagger needs at least one tag")
        self.head = nn.Linear(self.reader.output_size, len(self.labels))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Natural-log probabilities [batch, time, tags], zero beyond the lengths; arguments as of ``Reader``."""
        log_probs = functional.log_softmax(self.head(self.reader(x, lengths)), 2)
        if lengths is None:
            return log_probs
        return log_probs.masked_fill(~valid_steps(lengths, log_probs.shape[1]), 0.0)

    def collate(self, examples: Sequence[tuple[Any, Sequence[str]]]) -> dict[str, Tensor]:
        """A padded batch of examples (sequence [time] or [time, features], one tag for each of its steps)."""
        sequences, tags = zip(*examples, strict=True)
        raise_all(
            [
                f"example {i} has {len(sequence)} steps and {len(own)} tags"
                for i, (sequence, own) in enumerate(examples)
                if len(sequence) != len(own)
            ]
        )
        x, lengths = pad_sequences(sequences)
        targets, _ = pad_sequences([[self.label_id(tag) for tag in own] for own in tags])
        return {"x": x, "lengths": lengths, "targets": targets}

    def loss(self, x: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Tensor, int]:  # type: ignore[override]
        """Negative log-likelihood of ``targets``, int64 [batch, time], summed over valid steps; and their number."""
        picked = self(x, lengths).gather(2, targets.unsqueeze(2))  # zero beyond the lengths
        return -picked.sum(), int(lengths.sum())

    @torch.no_grad()
    def metrics(self, x: Tensor, lengths: Tensor, targets: Tensor) -> Metrics:  # type: ignore[override]
        """``accuracy`` of steps; ``precision`` and ``recall`` of spans, whose harmonic mean is F1."""
        best = self(x, lengths).argmax(2)
        valid = valid_steps(lengths, x.shape[1]).squeeze(2)
        predicted = self._tags(best, lengths)
        wanted = self._tags(targets, lengths)
        spans = count_spans(predicted, wanted)
        return {
            "accuracy": (float(((best == targets) & valid).sum()), int(lengths.sum())),
            "precision": (float(spans.correct), spans.predicted),
            "recall": (float(spans.correct), spans.wanted),
        }

    def _tags(self, ids: Tensor, lengths: Tensor) -> list[list[str]]:
        pairs = zip(ids.tolist(), lengths.tolist(), strict=True)
        return [[self.labels[i] for i in row[:length]] for row, length in pairs]
