"""``Generator``: from a condition such as a genre, or from nothing, to a sequence (one-to-many)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.layers.base import valid_steps
from rnncore.models.reader_config import ReaderConfig
from rnncore.models.task_model import Metrics, TaskModel, pad_sequences
from rnncore.runtime.errors import InputError
from rnncore.runtime.tasks.task import EOS_KEY


class Generator(TaskModel):
    r"""A model of the next token, given those before it and a condition that is fed at every step.

    .. math:: x_t = [E_{w_{t-1}}, C_k], \quad y_t = \mathrm{Stacked}(x)_t, \quad
        \log P(w_t \mid w_1 \dots w_{t-1}, k) = \log \mathrm{softmax}(W y_t + b)

    The token "end of sequence" is read before the first token, and ends every sequence.  Reading it together with the
    condition is what sets the state that the sequence begins with.

    Parameters: ``reader.*``; ``condition.weight`` [labels, condition_size] when there are labels; ``head.weight``
    [vocabulary_size, features], ``head.bias`` [vocabulary_size].

    Args:
        config: token ids, and one direction.
        labels: the conditions; none for sequences from nothing.
        condition_size: features of a condition.
        eos_id: the token "end of sequence".
    """

    task = "generator"
    output_name = "log_probs"

    def __init__(
        self, config: ReaderConfig, labels: Sequence[str] = (), *, condition_size: int = 16, eos_id: int = 0
    ) -> None:
        if config.vocabulary_size is None or config.bidirectional:
            raise InputError("a generator reads token ids in one direction: give vocabulary_size, not bidirectional")
        super().__init__(config, labels, condition_size if labels else 0)
        if not 0 <= eos_id < config.vocabulary_size:
            raise InputError(f"eos_id is {eos_id}, expected 0 to {config.vocabulary_size - 1}")
        self.eos_id = eos_id
        self.condition = nn.Embedding(len(self.labels), condition_size) if self.labels else None
        self.head = nn.Linear(self.reader.output_size, config.vocabulary_size)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """Natural-log probabilities of the next token, [batch, time, vocabulary], zero beyond the lengths.

        Args:
            x: int64 [batch, time]: "end of sequence", then tokens.
            condition: int64 [batch], numbers of labels; None when the model has none.
            lengths: int64 [batch].
        """
        if (condition is None) != (self.condition is None):
            expected = "none, for the model has no labels" if self.condition is None else "int64 [batch]"
            raise InputError(f"condition is {'missing' if condition is None else 'given'}, expected {expected}")
        extra = self.condition(condition) if self.condition is not None and condition is not None else None
        log_probs = functional.log_softmax(self.head(self.reader(x, lengths, extra)), 2)
        if lengths is None:
            return log_probs
        return log_probs.masked_fill(~valid_steps(lengths, log_probs.shape[1]), 0.0)

    def example_inputs(self) -> dict[str, Tensor]:
        """As for every model, with the first and the last condition."""
        inputs = super().example_inputs()
        if self.condition is not None:
            inputs["condition"] = torch.tensor([0, len(self.labels) - 1])
        return inputs

    def file_metadata(self) -> dict[str, str]:
        """As for every model, and which token ends a sequence."""
        return {**super().file_metadata(), EOS_KEY: json.dumps(self.eos_id)}

    def collate(self, examples: Sequence[tuple[Any, str | None]]) -> dict[str, Tensor]:
        """A padded batch of examples (token ids [time] without "end of sequence", condition or None)."""
        sequences, conditions = zip(*examples, strict=True)
        tokens, lengths = pad_sequences(sequences, self.eos_id)
        ends = torch.full((len(tokens), 1), self.eos_id)
        batch = {
            "x": torch.cat((ends, tokens), 1),
            "lengths": lengths + 1,
            "targets": torch.cat((tokens, ends), 1),  # padded with "end of sequence", so each ends with one
        }
        if self.condition is not None:
            batch["condition"] = torch.tensor([self.label_id(label) for label in conditions])
        return batch

    def loss(  # type: ignore[override]
        self, x: Tensor, lengths: Tensor, targets: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, int]:
        """Negative log-likelihood of ``targets``, int64 [batch, time], summed over valid steps; and their number."""
        picked = self(x, condition, lengths).gather(2, targets.unsqueeze(2))  # zero beyond the lengths
        return -picked.sum(), int(lengths.sum())

    @torch.no_grad()
    def metrics(  # type: ignore[override]
        self, x: Tensor, lengths: Tensor, targets: Tensor, condition: Tensor | None = None
    ) -> Metrics:
        """``bits``: what a token costs, "end of sequence" included."""
        total, count = self.loss(x, lengths, targets, condition)
        return {"bits": (float(total) / math.log(2), count)}
