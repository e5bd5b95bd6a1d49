"""``Pretrainer``: teaches a reader what its sequences are like, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.models.reader import Reader
from rnncore.models.task_model import Metrics, pad_sequences
from rnncore.runtime.errors import InputError

_IGNORED = -1
_SEED = 7  # of the steps hidden from held-out batches, the same in every epoch


class Pretrainer(nn.Module):
    """Predicts what its ``reader`` has not seen yet, and trains it by that; for :func:`rnncore.training.fit`.

    ::

        model = Embedder(config, 32)
        pretrainer = Pretrainer(model.reader)
        fit(pretrainer, sequences, held_out, collate=pretrainer.collate, epochs=5)
        # model.reader is trained; now the embedder by its loss, or model.whiten(labelled)

    A reader of one direction predicts the next step.  One of both directions sees it already; ``hidden`` of its steps are
    hidden from it and predicted from both sides: floats read as their mean, ids as another id drawn at random.

    The loss of ids is the cross-entropy, of floats half the squared distance of the standardised ones, averaged over
    features; one term is one predicted step.

    Args:
        reader: trained in place, by whoever else holds it too.
        hidden: fraction of steps hidden from a reader of both directions.

    Raises:
        InputError: hidden is not between 0 and 1.
    """

    def __init__(self, reader: Reader, *, hidden: float = 0.15) -> None:
        super().__init__()
        if not 0 < hidden < 1:
            raise InputError(f"hidden is {hidden}, expected a fraction above 0 and below 1")
        config = reader.config
        self.reader = reader
        self.hidden = hidden
        self.masked = config.bidirectional
        self.head = nn.Linear(reader.output_size, config.vocabulary_size or config.features or 1)

    def collate(self, sequences: Sequence[Any]) -> dict[str, Tensor]:
        """A padded batch of sequences, ids [time] or floats [time, features]."""
        x, lengths = pad_sequences(sequences)
        return {"x": x, "lengths": lengths}

    def loss(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, int]:
        """The loss summed over the predicted steps, and their number."""
        steps = torch.arange(x.shape[1], device=x.device)
        if self.masked:
            chosen = self._chosen(x, lengths)
            found, wanted = self.head(self.reader(self._without(x, chosen), lengths)), x
        else:
            chosen = (steps[None] < lengths[:, None] - 1)[:, : max(0, x.shape[1] - 1)]
            found, wanted = self.head(self.reader(x, lengths))[:, :-1], x[:, 1:]
        count = int(chosen.sum())
        if self.reader.embedding is not None:
            targets = wanted.masked_fill(~chosen, _IGNORED)
            loss = functional.cross_entropy(
                found.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=_IGNORED
            )
            return loss, count
        distance = found - (wanted - self.reader.mean) * self.reader.scale
        squared = (distance * distance).mean(2).masked_fill(~chosen, 0.0)
        return 0.5 * squared.sum(), count

    def metrics(self, x: Tensor, lengths: Tensor) -> Metrics:
        """Nothing besides the loss."""
        return {}

    def _chosen(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Which steps are hidden, bool [batch, time]; at least one of every sequence that has any."""
        generator = None if self.training else torch.Generator(x.device).manual_seed(_SEED)
        draws = torch.rand(x.shape[:2], device=x.device, generator=generator)
        valid = torch.arange(x.shape[1], device=x.device)[None] < lengths[:, None]
        draws = draws.masked_fill(~valid, 2.0)
        first = draws == draws.amin(1, keepdim=True)
        return (first | (draws < self.hidden)) & valid

    def _without(self, x: Tensor, chosen: Tensor) -> Tensor:
        if self.reader.embedding is None:
            return torch.where(chosen.unsqueeze(2), self.reader.mean, x)
        generator = None if self.training else torch.Generator(x.device).manual_seed(_SEED)
        size = self.reader.embedding.num_embeddings
        others = torch.randint(size, x.shape, device=x.device, generator=generator)
        return torch.where(chosen, others, x)
