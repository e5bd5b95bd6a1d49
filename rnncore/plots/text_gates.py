"""The gates of a language model over a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnncore.models import LanguageModel
from rnncore.plots.gates import Recording, gates
from rnncore.runtime.errors import InputError
from rnncore.runtime.text.special_tokens import EOS
from rnncore.runtime.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class TextGates:
    """What one layer did while it read a text.

    text: as it was handed in.
    tokens: what was read at each step, ``<eos>`` first.
    values: gate or state -> [time, size].
    """

    text: str
    tokens: tuple[str, ...]
    values: Recording

    def liveliness(self, of: str) -> Tensor:
        """How much each unit of ``of`` follows the text, [size]: the deviation of its tanh from a straight line in time.

        A unit that counts up, or is saturated, varies much and says nothing about what is read; here it counts for little.
        """
        values = torch.tanh(self.values[of].double())
        steps = torch.linspace(-1.0, 1.0, len(values), dtype=torch.float64)
        centred = values - values.mean(0)
        slope = (steps @ centred) / (steps @ steps).clamp(min=1e-9)
        # Of texts so short that a line is all there is, what is left of the spread decides.
        return (centred - steps[:, None] * slope).std(0, correction=0) + 1e-3 * centred.std(0, correction=0)

    def strongest_units(self, number: int, of: str) -> list[int]:
        """The units of ``of`` that follow the text most, see :meth:`liveliness`, in rising order."""
        return liveliest_units([self], number, of)


def liveliest_units(texts: Sequence[TextGates], number: int, of: str) -> list[int]:
    """The units of ``of`` that follow all of ``texts`` most, in rising order."""
    spread = torch.stack([text.liveliness(of) for text in texts]).sum(0)
    return sorted(spread.topk(min(number, len(spread))).indices.tolist())


@torch.no_grad()
def text_gates(model: LanguageModel, vocabulary: Vocabulary, text: str, layer: int | None = None) -> TextGates:
    """Record the gates of a layer of ``model`` over ``<eos>`` and ``text``.

    Args:
        model: put into evaluation mode meanwhile.
        vocabulary: of the model's tokens.
        text: what it reads.
        layer: from 0, the lowest; the top one unless given.

    Raises:
        InputError: there is no such layer.
        UnknownTokenError: the text holds something the vocabulary lacks.
    """
    layers = list(model.stack.layers)
    number = len(layers) - 1 if layer is None else layer
    if not 0 <= number < len(layers):
        raise InputError(f"layer is {layer}, expected 0 to {len(layers) - 1}")
    ids = vocabulary.encode(text)
    tokens = (EOS, *(_shown(piece) for piece in vocabulary.pieces(text)))
    was_training = model.training
    model.eval()
    try:
        read = torch.cat((torch.tensor([vocabulary.eos_id]), torch.from_numpy(ids)))
        x: Tensor = model.embedding(read.to(model.embedding.weight.device).unsqueeze(0))
        for below in layers[:number]:
            x, _ = below(x)
        recorded = gates(layers[number].cell, x)  # type: ignore[arg-type]  # a language model has Recurrent layers
    finally:
        model.train(was_training)
    return TextGates(text, tokens, {name: values[0].cpu() for name, values in recorded.items()})


def _shown(piece: str) -> str:
    """A token for people to read: without the blanks before a word, but never nothing."""
    return piece.strip() or piece.replace("\n", "⏎").replace(" ", "␣") or "·"
