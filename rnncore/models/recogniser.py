"""``Recogniser``: frames to a shorter sequence of labels, by connectionist temporal classification (CTC)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.layers.base import valid_steps
from rnncore.models.reader_config import ReaderConfig
from rnncore.models.task_model import Metrics, TaskModel, pad_sequences
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.tasks.ctc import BLANK, collapse
from rnncore.runtime.tasks.levenshtein import edit_distance


class Recogniser(TaskModel):
    r"""Recurrent layers, and at every frame a distribution over the labels and "blank", which has number 0.

    The probability of a label sequence is the sum over all frame sequences that become it when repetitions are merged
    and blanks dropped (Graves et al. 2006, "Connectionist temporal classification").

    Parameters: ``reader.*``; ``head.weight`` [1 + labels, features], ``head.bias`` [1 + labels].

    Args:
        config: what it reads, and through which layers; with one direction it streams.
        labels: without blank; such as the letters and the space.
    """

    task = "recogniser"
    output_name = "log_probs"

    def __init__(self, config: ReaderConfig, labels: Sequence[str]) -> None:
        super().__init__(config, labels)
        if not self.labels:
            raise InputError("labels is empty: a recogniser needs at least one")
        self.head = nn.Linear(self.reader.output_size, 1 + len(self.labels))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Natural-log probabilities [batch, time, 1 + labels], zero beyond the lengths; arguments as of ``Reader``."""
        log_probs = functional.log_softmax(self.head(self.reader(x, lengths)), 2)
        if lengths is None:
            return log_probs
        return log_probs.masked_fill(~valid_steps(lengths, log_probs.shape[1]), 0.0)

    def collate(self, examples: Sequence[tuple[Any, Sequence[str]]]) -> dict[str, Tensor]:
        """A padded batch of examples (frames [time, features], labels); a text is a sequence of its characters.

        Raises InputError for more labels (and blanks between equal ones) than frames, which CTC cannot align.
        """
        sequences, labels = zip(*examples, strict=True)
        numbers = [[1 + self.label_id(label) for label in own] for own in labels]
        needed = [len(own) + sum(a == b for a, b in pairwise(own)) for own in numbers]
        raise_all(
            [
                f"example {i} has {len(sequence)} frames, its labels need at least {least}"
                for i, (sequence, least) in enumerate(zip(sequences, needed, strict=True))
                if len(sequence) < least
            ]
        )
        x, lengths = pad_sequences(sequences)
        targets, target_lengths = pad_sequences(numbers, BLANK)
        return {"x": x, "lengths": lengths, "targets": targets, "target_lengths": target_lengths}

    def loss(  # type: ignore[override]
        self, x: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor
    ) -> tuple[Tensor, int]:
        """Negative log-likelihood of the labels, summed over sequences; and the number of labels (at least 1).

        Args:
            x, lengths: as of ``Reader``.
            targets: int64 [batch, longest], numbers from 1 on.
            target_lengths: int64 [batch].
        """
        log_probs = self(x, lengths).transpose(0, 1)
        if not len(log_probs):  # torch's function refuses a batch without frames; collate lets no labels into one
            return log_probs.sum(), max(1, int(target_lengths.sum()))
        total = functional.ctc_loss(log_probs, targets, lengths, target_lengths, blank=BLANK, reduction="sum")
        return total, max(1, int(target_lengths.sum()))

    @torch.no_grad()
    def metrics(  # type: ignore[override]
        self, x: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor
    ) -> Metrics:
        """``label_error``: edits from the likeliest frames' labels to the right ones, for each right one."""
        best = self(x, lengths).argmax(2).tolist()
        edits = 0
        for row, length, target, size in zip(
            best, lengths.tolist(), targets.tolist(), target_lengths.tolist(), strict=True
        ):
            edits += edit_distance(collapse(row[:length]), target[:size])
        return {"label_error": (float(edits), int(target_lengths.sum()))}
