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


class RunningMean(rnncore.StreamingLayer):
    """A user's own layer without a loop: the mean of all steps so far."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, {"total": size, "count": 1})

    def advance(
        self, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        total, count = state
        totals = total.unsqueeze(1) + x.cumsum(1)
        counts = count.unsqueeze(1) + torch.arange(1, x.shape[1] + 1, device=x.device).unsqueeze(1)
        steps = torch.full_like(count, x.shape[1]) if lengths is None else lengths.unsqueeze(1).to(x.dtype)
        return totals / counts, (totals[:, -1], count + steps)


class Spotter(nn.Module):
    """A keyword spotter: convolutions over time (dilated, depthwise, pointwise), norms, a running mean, LSTM, head."""

    def __init__(self) -> None:
        super().__init__()
        self.front = rnncore.Stacked(
            [
                rnncore.CausalConv1d(5, 6, 3, dilation=2),
                nn.LayerNorm(6),
                nn.ReLU(),
                rnncore.CausalConv1d(6, 6, 4, groups=6, bias=False),
                rnncore.CausalConv1d(6, 7, 1),
            ]
        )
        self.norm = nn.BatchNorm1d(7)
        self.level = RunningMean(5)
        self.lstm = nn.LSTM(12, 11, batch_first=True)
        self.head = nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        front = self.norm(self.front(x)[0].transpose(1, 2)).transpose(1, 2)
        return self.head(self.lstm(torch.cat((front, self.level(x)[0]), 2))[0])


class FirstOf(nn.Module):
    """The adaptor with which a layer of torch.nn, which returns a tuple, stands in an nn.Sequential."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Reader(nn.Module):
    """Knows lengths but packs nothing: layers in a Sequential, two branches, one of them twice, heads of the last step."""

    def __init__(self) -> None:
        super().__init__()
        gru = FirstOf(nn.GRU(7, 7, batch_first=True))
        self.deep = nn.Sequential(nn.Linear(5, 7), gru, nn.LayerNorm(7), nn.Dropout(0.5), gru)
        self.wide = nn.Sequential(FirstOf(nn.LSTM(5, 11, num_layers=2, batch_first=True)), nn.Linear(11, 7))
        self.norm = nn.BatchNorm1d(7)

    def forward(self, x: Tensor, lengths: Tensor) -> dict[str, Any]:
        y = torch.tanh(self.deep(x)) * self.wide(x)
        last = (lengths - 1).clamp(min=0)
        picked = y[torch.arange(y.shape[0]), last]
        gathered = y.gather(1, last.view(-1, 1, 1).expand(-1, 1, 7)).squeeze(1)
        return {"steps": y, "last": (self.norm(picked), gathered)}


class Attentive(nn.Module):
    """Attention over what an encoder gave, read by a decoder; pooled as well."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.GRU(5, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.decoder = rnncore.LSTM(8, 7)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.encoder(x)
        context, _ = self.attention(y, y, y)
        return self.decoder(context)[0], y.max(1).values


class Shuffling(nn.Module):
    """Sorts its rows by length by hand, and back: the rows of a batch are not where their states are."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 7, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        order = lengths.argsort(descending=True)
        return self.gru(x[order])[0][order.argsort()]
