"""Modules as users write them, and the shell in which the property tests export a stack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import rnncore
from tests.parity import leaves
from tests.strategies import randomize

VOCABULARY, EMBEDDING, HIDDEN, TAGS = 23, 11, 17, 5


class Network(nn.Module):
    """A stack behind a plain forward: y alone, or y and the final states by name.  ``lengths`` may be an input."""

    def __init__(self, stack: rnncore.RecurrentLayer, *, with_states: bool = False) -> None:
        super().__init__()
        self.stack = stack
        self.with_states = with_states

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        y, state = self.stack(x, None, lengths)
        states = {f"state.{i}": leaf for i, leaf in enumerate(leaves(state))} if self.with_states else {}
        return {"y": y, **states}


class Tagger(nn.Module):
    """Embedding, a recurrent layer of torch.nn, a linear head: [batch, time] ids -> [batch, time, tags].

    With batch_first=False of the layer both are time first.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, layer.input_size)
        self.layer = layer
        width = (layer.proj_size or layer.hidden_size) * (1 + layer.bidirectional)
        self.head = nn.Linear(width, TAGS)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(ids))[0])


TORCH_LAYERS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "lstm bidirectional": (nn.LSTM, {"bidirectional": True}),
    "rnn tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "rnn relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm projected": (nn.LSTM, {"proj_size": 7}),
    "gru two layers": (nn.GRU, {"num_layers": 2}),
}


def tagger(kind: str, *, batch_first: bool = True, hidden_size: int = HIDDEN, seed: int = 1) -> Tagger:
    """A tagger with random weights around one of :data:`TORCH_LAYERS`."""
    layer, options = TORCH_LAYERS[kind]
    return randomize(Tagger(layer(EMBEDDING, hidden_size, batch_first=batch_first, **options)).eval(), seed)


def ids(batch: int, time: int, seed: int = 0) -> Tensor:
    """int64 [batch, time]."""
    return torch.randint(VOCABULARY, (batch, time), generator=torch.Generator().manual_seed(seed))


class Around(nn.Module):
    """A GRU with something that looks along time around it."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 11, batch_first=True)


class MeanPool(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0].mean(1)


class Convolution(Around):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(5, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]


class FutureSum(Around):
    """Each step sees the sum of all steps from here to the end."""

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x.flip(1).cumsum(1).flip(1))[0]


class LastStep(Around):
    """One answer for the sequence: that of its last step."""

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0][:, -1]


def mixed_stack(*, learned: bool = True, seed: int = 2) -> rnncore.Stacked:
    """GRU with the reset before the product, peephole LSTM, relu RNN: 5 features -> 7."""
    layers = [
        rnncore.Recurrent(rnncore.GRUCell(5, 13, reset="before", learn_initial_state=learned)),
        rnncore.Recurrent(rnncore.LSTMCell(13, 11, peephole="current", learn_initial_state=learned)),
        rnncore.Recurrent(rnncore.RNNCell(11, 7, activation="relu")),
    ]
    return randomize(rnncore.Stacked(layers).eval(), seed)
