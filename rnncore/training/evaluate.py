"""How well a model predicts texts it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from rnncore.models import LanguageModel
from rnncore.models.language_model import IGNORED
from rnncore.runtime.errors import InputError

_ROWS = 32
_STEPS = 256


class Evaluation(NamedTuple):
    """Total natural-log probability of some texts, and the number of tokens predicted, ``<eos>`` included."""

    log_prob: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """``exp(-log_prob / tokens)``."""
        return math.exp(-self.log_prob / self.tokens)


@torch.no_grad()
def evaluate(model: LanguageModel, texts: Sequence[np.ndarray], eos_id: int) -> Evaluation:
    """Score every text from the initial state, each up to and including its ``<eos>``.

    This is what ``score(text, eos=True)`` of :class:`rnncore.runtime.LanguageModel` gives, summed over the texts.

    Args:
        model: on any device; put into evaluation mode meanwhile.
        texts: token ids of each text, int64 [tokens], without ``<eos>``.
        eos_id: id of the token read first and predicted last.
    """
    if not texts:
        raise InputError("no texts to evaluate on")
    was_training = model.training
    model.eval()
    try:
        total = sum(_padded_log_prob(model, rows, eos_id) for rows in _rows_of_like_length(texts))
    finally:
        model.train(was_training)
    return Evaluation(total, sum(len(text) + 1 for text in texts))


def _rows_of_like_length(texts: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), _ROWS):
        yield ordered[start : start + _ROWS]


def _padded_log_prob(model: LanguageModel, rows: list[np.ndarray], eos_id: int) -> float:
    device = model.embedding.weight.device
    longest = len(rows[-1]) + 1
    inputs = torch.full((len(rows), longest), eos_id)
    targets = torch.full((len(rows), longest), IGNORED)
    for row, text in enumerate(rows):
        ids = torch.from_numpy(text)
        inputs[row, 1 : len(text) + 1] = ids
        targets[row, : len(text)] = ids
        targets[row, len(text)] = eos_id
    total = 0.0
    state = None
    for start in range(0, longest, _STEPS):
        piece = slice(start, start + _STEPS)
        loss, state = model.loss_with_state(inputs[:, piece].to(device), targets[:, piece].to(device), state)
        total -= float(loss)
    return total
