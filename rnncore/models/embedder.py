"""``Embedder``: a vector of length 1 for a sequence, near to those of its like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.models.class_whitening import whitening
from rnncore.models.embedding_losses import LOSSES, contrastive_loss, pair_loss, ranking_loss, triplet_loss
from rnncore.models.pooling import Pooling
from rnncore.models.reader_config import ReaderConfig
from rnncore.models.task_model import Metrics, TaskModel, pad_sequences
from rnncore.runtime.errors import InputError

_ROWS = 64  # sequences embedded at a time where no gradient is taken


class Embedder(TaskModel):
    r"""Recurrent layers, pooling over time, a linear map, and division by the vector's length.

    .. math:: e = \frac{W \, \mathrm{pool}(y) + b}{\lVert W \, \mathrm{pool}(y) + b \rVert_2}

    ============= ============================================ ==========================================================
    loss          an example                                   what is wanted; see ``rnncore.models.embedding_losses``
    ============= ============================================ ==========================================================
    contrastive   (sequence, label)                            all of a label are nearer than all others of the batch
    triplet       (sequence, label)                            the farthest of its label is nearer, by ``margin``, than
                                                               the nearest of another: the hardest of each batch
    ranking       (sequence, its like, hard negatives ...)     its like is found among those of the whole batch; hard
                                                               negatives are optional, see ``training.hard_negatives``
    pairs         (sequence, sequence, whether they are alike) near if they are, else ``margin`` apart
    ============= ============================================ ==========================================================

    Where there are few labels, such as some speakers, and others are to be told apart later, training by a loss makes the
    others harder to tell apart than they were; :meth:`whiten` needs no gradient and makes it easier.

    Parameters: ``reader.*``, ``pooling.*``; ``head.weight`` [size, features], ``head.bias`` [size].

    Args:
        config: what it reads, and through which layers.
        size: numbers of a vector.
        pooling: "last", "mean", "max", "attention" or "statistics", as for :class:`rnncore.models.Classifier`.
        temperature: tau of "contrastive" and "ranking".
        loss: one of the table.
        margin: of "triplet" and "pairs".
    """

    task = "embedder"
    output_name = "embedding"

    def __init__(
        self,
        config: ReaderConfig,
        size: int,
        *,
        pooling: str = "mean",
        temperature: float = 0.1,
        loss: str = "contrastive",
        margin: float = 0.3,
    ) -> None:
        super().__init__(config)
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}, expected a number above 0")
        if loss not in LOSSES:
            raise InputError(f"unknown loss {loss!r}; known: {', '.join(LOSSES)}")
        if not 0 < margin <= 2:
            raise InputError(f"margin is {margin}, expected above 0 and at most 2, the largest distance of two vectors")
        self.temperature = temperature
        self.margin = margin
        self.loss_kind = loss
        self.pooling = Pooling(pooling, self.reader.output_size, self.reader.forward_size)
        self.head = nn.Linear(self.pooling.output_size, size)

    @property
    def streams(self) -> bool:
        """As for every model; and only the last step's features are known before the end."""
        return super().streams and self.pooling.kind == "last"

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Vectors of length 1, [batch, size]; arguments as of ``Reader``."""
        return functional.normalize(self.head(self.features(x, lengths)), dim=1)

    def features(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the linear map makes a vector of, [batch, pooling.output_size]; arguments as of ``Reader``."""
        return self.pooling(self.reader(x, lengths), lengths)

    @property
    def batch_label(self) -> Callable[[tuple[Any, ...]], str | int] | None:
        """Which label an example has, for losses that compare it with others of its label: ``fit`` puts them together."""
        return _label if self.loss_kind in ("contrastive", "triplet") else None

    def collate(self, examples: Sequence[tuple[Any, ...]]) -> dict[str, Tensor]:
        """A padded batch of examples as the table has them; sequences are [time] or [time, features].

        ``x`` and ``lengths`` are of all sequences: of pairs all the first ones, then all the second ones, then hard
        negatives.  ``targets``: of labels the number of each, equal ones for equal labels; else as the losses want them.
        """
        if self.loss_kind in ("contrastive", "triplet"):
            sequences, labels = zip(*examples, strict=True)
            numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
            targets = torch.tensor([numbers[label] for label in labels])
        elif self.loss_kind == "ranking":
            pairs_of = [_checked(one, 2, "(sequence, its like, hard negatives ...)") for one in examples]
            first, second = zip(*(one[:2] for one in pairs_of), strict=True)
            negatives = [negative for one in examples for negative in one[2:]]
            sequences = (*first, *second, *negatives)
            pairs = list(range(len(first)))
            targets = torch.tensor([*pairs, *pairs, *(-1 for _ in negatives)])
        else:
            told = [_checked(one, 3, "(sequence, sequence, whether they are alike)") for one in examples]
            first, second, alike = zip(*(one[:3] for one in told), strict=True)
            sequences = (*first, *second)
            targets = torch.tensor([bool(one) for one in alike])
        x, lengths = pad_sequences(sequences)
        return {"x": x, "lengths": lengths, "targets": targets}

    def loss(self, x: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Tensor, int]:  # type: ignore[override]
        """The loss summed over a batch of :meth:`collate`; and how many terms that are."""
        vectors = self(x, lengths)
        if self.loss_kind == "contrastive":
            return contrastive_loss(vectors, targets, self.temperature)
        if self.loss_kind == "triplet":
            return triplet_loss(vectors, targets, self.margin)
        if self.loss_kind == "ranking":
            return ranking_loss(vectors, targets, self.temperature)
        return pair_loss(vectors, targets, self.margin)

    @torch.no_grad()
    def metrics(self, x: Tensor, lengths: Tensor, targets: Tensor) -> Metrics:  # type: ignore[override]
        """``nearest``: how often the nearest other vector of the batch is of the same label, or pair, where one is there.

        Of pairs that are alike or not ``ordered``: how often one that is alike has a larger cosine than one that is not.
        """
        vectors = self(x, lengths)
        if self.loss_kind == "pairs":
            left, right = vectors.chunk(2)
            cosines = (left * right).sum(1)
            larger = cosines[targets][:, None] > cosines[~targets]
            return {"ordered": (float(larger.sum()), larger.numel())}
        if self.loss_kind == "ranking":
            pairs = int(targets.max()) + 1
            found = (vectors[:pairs] @ vectors[pairs:].t()).argmax(1).cpu()
            return {"nearest": (float((found == torch.arange(pairs)).sum()), pairs)}
        similarity = (vectors @ vectors.t()).fill_diagonal_(-torch.inf)
        alike = targets[:, None] == targets
        has_mate = alike.sum(1) > 1
        right_ones = (targets[similarity.argmax(1)] == targets) & has_mate
        return {"nearest": (float(right_ones.sum()), int(has_mate.sum()))}

    @torch.no_grad()
    def whiten(self, examples: Iterable[tuple[Any, str | int]], *, shrinkage: float = 0.1) -> None:
        """Set the linear map so that what differs between sequences of one label counts for less: no gradients.

        Within-class covariance normalisation (Hatch, Kajarekar and Stolcke 2006) of the features of the layers as they
        are, untrained ones too, as a reservoir; of the directions that are left, the ``size`` with the largest spread.
        Best with ``pooling="statistics"`` and ``size`` not much below ``pooling.output_size``.

        Args:
            examples: (sequence, label), some labels with several sequences.
            shrinkage: how much of the covariance is replaced by equal variances; more for fewer examples.

        Raises:
            InputError: shrinkage is not above 0 and at most 1, ``size`` is larger than the features, or no label has two.
        """
        examples = list(examples)
        if not examples:
            raise InputError("there is no example, expected at least two")
        sequences, labels = zip(*examples, strict=True)
        weight, bias = whitening(self._evaluated(self.features, sequences), labels, len(self.head.bias), shrinkage)
        self.head.weight.copy_(weight)
        self.head.bias.copy_(bias)

    def vectors(self, sequences: Sequence[Any]) -> Tensor:
        """The vector of each sequence, [sequences, size], as the exported file gives them: without dropout or gradient."""
        return self._evaluated(self, sequences)

    @torch.no_grad()
    def _evaluated(self, function: Callable[[Tensor, Tensor], Tensor], sequences: Sequence[Any]) -> Tensor:
        like = self.head.weight
        was_training = self.training
        self.eval()
        try:
            parts = []
            for start in range(0, len(sequences), _ROWS):
                x, lengths = pad_sequences(sequences[start : start + _ROWS])
                x = x.to(like) if x.is_floating_point() else x.to(like.device)
                parts.append(function(x, lengths.to(like.device)))
        finally:
            self.train(was_training)
        if not parts:
            raise InputError("there is no sequence, expected at least one")
        return torch.cat(parts)


def _label(example: tuple[Any, ...]) -> str | int:
    label: str | int = example[1]
    return label


def _checked(example: tuple[Any, ...], least: int, expected: str) -> tuple[Any, ...]:
    if not isinstance(example, tuple) or len(example) < least:
        raise InputError(f"an example is {type(example).__name__} of {len(example)}, expected {expected}")
    return example
