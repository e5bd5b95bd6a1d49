"""``Tagger``: a label for every step (many-to-many of equal length)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.layers.base import valid_steps
from rnncore.models.affix_encoder import AffixEncoder
from rnncore.models.crf import FORBIDDEN, LinearChain
from rnncore.models.reader_config import ReaderConfig
from rnncore.models.task_model import Metrics, TaskModel, pad_sequences
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.tasks.spans import count_spans
from rnncore.runtime.tasks.tagger import AFFIXES_KEY, SCORES
from rnncore.runtime.text.affixes import Affixes

AFFIX_FEATURES = 64
"""Features of a word that come from its letters."""


class Tagger(TaskModel):
    r"""Recurrent layers, and a linear head at every step.

    .. math:: \log P(\mathrm{tag}_t \mid x) = \log \mathrm{softmax}(W y_t + b)

    With one step a sequence it is the notes' one-to-one network.

    With ``crf`` the tags of a sequence are chosen together, by a linear-chain conditional random field:

    .. math:: \log P(\mathrm{tags} \mid x) =
        b_{\mathrm{tag}_1} + \sum_t (W y_t + b)_{\mathrm{tag}_t} + \sum_t A_{\mathrm{tag}_t, \mathrm{tag}_{t+1}}
        + e_{\mathrm{tag}_T} - \log Z(x)

    Parameters: ``reader.*``, see :class:`rnncore.models.Reader`; ``head.weight`` [tags, features], ``head.bias`` [tags];
    ``crf.weights.*``, see :class:`rnncore.models.crf.ChainWeights`.

    Args:
        config: what it reads, and through which layers; bidirectional as a rule, unless it has to stream.
        labels: the tags.  ``B-x``, ``I-x`` and ``O`` mark spans; so do equal tags side by side, see
            :mod:`rnncore.runtime.tasks.spans`.
        crf: choose the tags together.  The Viterbi search is part of the file, as loops; it looks back from the end, so
            the file does not stream.
        affixes: read the first and last letters of every word beside it, see :class:`rnncore.runtime.Affixes`: what a word
            that is not known looks like.
        bio: with ``crf``, never answer ``I-x`` but after ``B-x`` or ``I-x``; None: if some label begins with ``B-``.
    """

    task = "tagger"
    output_name = "log_probs"

    def __init__(
        self,
        config: ReaderConfig,
        labels: Sequence[str],
        *,
        crf: bool = False,
        bio: bool | None = None,
        affixes: Affixes | None = None,
    ) -> None:
        super().__init__(config, labels, AFFIX_FEATURES if affixes else 0)
        if not self.labels:
            raise InputError("labels is empty: a tagger needs at least one tag")
        if bio and not crf:
            raise InputError("bio=True rules out tags that may not follow each other, which needs crf=True")
        if affixes and config.vocabulary_size is None:
            raise InputError("affixes are of words: the tagger must read token ids, give vocabulary_size")
        self.letters = AffixEncoder(affixes, AFFIX_FEATURES) if affixes else None
        self.head = nn.Linear(self.reader.output_size, len(self.labels))
        self.crf: LinearChain | None = None
        if crf:
            begins = any(label.startswith("B-") for label in self.labels)
            self.crf = LinearChain(self.labels, bio=begins if bio is None else bio)
            self.output_name = SCORES

    @property
    def streams(self) -> bool:
        """As for every model; and tags that are chosen together are known at the end only."""
        return super().streams and self.crf is None

    def forward(self, x: Tensor, lengths: Tensor | None = None, letters: Tensor | None = None) -> Tensor:
        """Natural-log probabilities [batch, time, tags], zero beyond the lengths; arguments as of ``Reader``.

        With a CRF: 0 for the tag that the likeliest tagging has there, and for any other the log-probability of the
        likeliest tagging that has it, less that of the likeliest of all (at least -50).

        letters: int64 [batch, time, width], what ``affixes.ids`` gives for the words; for a tagger with ``affixes`` only.
        """
        emissions = self._emissions(x, lengths, letters)
        if self.crf is not None:
            return self.crf(emissions, lengths)
        log_probs = functional.log_softmax(emissions, 2)
        if lengths is None:
            return log_probs
        return log_probs.masked_fill(~valid_steps(lengths, log_probs.shape[1]), 0.0)

    def _emissions(self, x: Tensor, lengths: Tensor | None, letters: Tensor | None) -> Tensor:
        if (letters is None) != (self.letters is None):
            raise InputError(
                "letters are missing: this tagger reads affixes of words beside their ids"
                if letters is None
                else "letters are given, but this tagger was made without affixes"
            )
        extra = None
        if self.letters is not None:
            rate = self.reader.config.dropout
            extra = functional.dropout(self.letters(letters), rate, self.training)
        return self.head(self.reader(x, lengths, extra))

    def example_inputs(self) -> dict[str, Tensor]:
        """As for every model, and letters from the first number to the last."""
        inputs = super().example_inputs()
        if self.letters is not None:
            top, shape = self.letters.affixes.size - 1, (*inputs["x"].shape, self.letters.affixes.width)
            inputs["letters"] = torch.linspace(0, top, math.prod(shape)).round().long().reshape(shape)
        return inputs

    def file_metadata(self) -> dict[str, str]:
        """As for every model, and which letters are read."""
        own = {} if self.letters is None else {AFFIXES_KEY: self.letters.affixes.to_json()}
        return {**super().file_metadata(), **own}

    def collate(self, examples: Sequence[tuple[Any, ...]]) -> dict[str, Tensor]:
        """A padded batch of examples (sequence [time] or [time, features], one tag for each of its steps).

        With ``affixes`` (token ids [time], letters [time, width], tags).
        """
        *inputs, tags = zip(*examples, strict=True)
        sequences = inputs[0]
        raise_all(
            [
                f"example {i} has {len(sequence)} steps and {len(own)} tags"
                for i, (sequence, own) in enumerate(zip(sequences, tags, strict=True))
                if len(sequence) != len(own)
            ]
        )
        x, lengths = pad_sequences(sequences)
        targets, _ = pad_sequences([[self.label_id(tag) for tag in own] for own in tags])
        self._check_possible(targets, lengths)
        letters = {} if self.letters is None else {"letters": pad_sequences(inputs[1])[0]}
        return {"x": x, "lengths": lengths, "targets": targets, **letters}

    def loss(  # type: ignore[override]
        self, x: Tensor, lengths: Tensor, targets: Tensor, letters: Tensor | None = None
    ) -> tuple[Tensor, int]:
        """Negative log-likelihood of ``targets``, int64 [batch, time], summed over valid steps; and their number.

        With a CRF that of whole sequences, still for each step.
        """
        if self.crf is not None:
            total = self.crf.log_likelihood(self._emissions(x, lengths, letters), lengths, targets).sum()
            return -total, int(lengths.sum())
        picked = self(x, lengths, letters).gather(2, targets.unsqueeze(2))  # zero beyond the lengths
        return -picked.sum(), int(lengths.sum())

    @torch.no_grad()
    def metrics(  # type: ignore[override]
        self, x: Tensor, lengths: Tensor, targets: Tensor, letters: Tensor | None = None
    ) -> Metrics:
        """``accuracy`` of steps; ``precision`` and ``recall`` of spans, whose harmonic mean is F1."""
        best = self(x, lengths, letters).argmax(2)
        valid = valid_steps(lengths, x.shape[1]).squeeze(2)
        predicted = self._tags(best, lengths)
        wanted = self._tags(targets, lengths)
        spans = count_spans(predicted, wanted)
        return {
            "accuracy": (float(((best == targets) & valid).sum()), int(lengths.sum())),
            "precision": (float(spans.correct), spans.predicted),
            "recall": (float(spans.correct), spans.wanted),
        }

    def _check_possible(self, targets: Tensor, lengths: Tensor) -> None:
        """Raise InputError for tags that the CRF rules out: their loss would be thousands."""
        if self.crf is None:
            return
        first, after = (mask == FORBIDDEN for mask in (self.crf.weights.not_first, self.crf.weights.not_after))
        problems = []
        for row, tags in enumerate(self._tags(targets, lengths)):
            ids = [self.label_id(tag) for tag in tags]
            wrong = [0] if ids and bool(first[ids[0]]) else []
            wrong += [t for t in range(1, len(ids)) if bool(after[ids[t - 1], ids[t]])]
            problems += [
                f"example {row} has {tags[t]!r} at step {t}, which begins no span: expected 'B-'" for t in wrong
            ]
        raise_all(problems, title="bio=True rules these tags out; mend them, or pass bio=False")

    def _tags(self, ids: Tensor, lengths: Tensor) -> list[list[str]]:
        pairs = zip(ids.tolist(), lengths.tolist(), strict=True)
        return [[self.labels[i] for i in row[:length]] for row, length in pairs]
