"""Who says what a translator has to write: its PyTorch model, or for int8 the file itself, asked for one step after another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from rnncore.export.decoding.beam_check import After, Tokens
from rnncore.models.encoder_decoder import EncoderDecoder
from rnncore.runtime import Model
from rnncore.runtime.arrays import Array
from rnncore.runtime.text.translator import TRANSLATION_KEY, DecoderFeeds


class Answers(Protocol):
    """Log-probabilities of targets that somebody has begun."""

    @property
    def source_size(self) -> int:
        """How many tokens there are to read."""

    @property
    def end_id(self) -> int:
        """The token that ends a target."""

    def log_probs(self, source: Array, begun: Array) -> Array:
        """Of ``source`` [time], what comes after each token of ``begun`` [targets, tokens]: [targets, tokens + 1, vocabulary]."""


@dataclass(frozen=True)
class ModuleAnswers:
    """Those of PyTorch, each target read from its beginning."""

    model: EncoderDecoder

    @property
    def source_size(self) -> int:
        """See :class:`Answers`."""
        return self.model.config.source_size

    @property
    def end_id(self) -> int:
        """See :class:`Answers`."""
        return self.model.config.end_id

    def log_probs(self, source: Array, begun: Array) -> Array:
        """See :class:`Answers`."""
        device, targets = self.model.head.weight.device, len(begun)
        ids = torch.from_numpy(source if len(source) else np.zeros(1, np.int64)).expand(targets, -1).to(device)
        read = torch.from_numpy(np.pad(begun, ((0, 0), (1, 0)), constant_values=self.end_id)).to(device)
        with torch.no_grad():
            log_probs = self.model(ids, torch.full((targets,), len(source), device=device), read)
        result: Array = log_probs.double().cpu().numpy()
        return result


@dataclass(frozen=True)
class FileAnswers:
    """Those of a translator's file, one call for each token, with the states handed from call to call."""

    file: Model

    @property
    def source_size(self) -> int:
        """See :class:`Answers`."""
        return int(self.file.signature.inputs[0].limit or 0)

    @property
    def end_id(self) -> int:
        """See :class:`Answers`."""
        return self._feeds.end

    @cached_property
    def _feeds(self) -> DecoderFeeds:
        return DecoderFeeds.from_json(self.file.metadata[TRANSLATION_KEY])

    def log_probs(self, source: Array, begun: Array) -> Array:
        """See :class:`Answers`."""
        targets, feeds = len(begun), self._feeds.feeds
        read = np.tile(source if len(source) else np.zeros(1, np.int64), (targets, 1))
        every = {
            "source": read,
            "lengths": np.full(targets, len(source), np.int64),
            "max_tokens": np.ones(targets, np.int64),
        }
        answer = self.file.run(**every)
        steps = [answer["next_log_probs"]]
        for token in begun.T:
            kept = {name: answer[output] for name, output in feeds.items()}
            answer = self.file.run(**every, token=np.ascontiguousarray(token), **kept)
            steps.append(answer["next_log_probs"])
        result: Array = np.stack(steps, 1).astype(np.float64)
        return result


def beginning(file: Model, source: Array, **options: Array) -> dict[str, Array]:
    """All inputs but the lengths, for decoding ``source`` [batch, time] from the beginning; zero where nothing reads them."""
    inputs = {"source": source, "token": np.full(len(source), -1, np.int64), **options}
    for port in file.signature.inputs:
        shape = [len(source), *(axis if isinstance(axis, int) else 1 for axis in port.shape[1:])]
        inputs.setdefault(port.name, np.zeros(shape, port.dtype))
    return inputs


def what_follows(answers: Answers, source: Array) -> After:
    """What comes after any beginning of a target of ``source`` [time], each computed from the beginning."""

    def after(beginnings: list[Tokens]) -> Array:
        return answers.log_probs(source, np.array(beginnings, np.int64).reshape(len(beginnings), -1))[:, -1]

    return after
