"""Modules for the int8 tests, wide enough that their products are worth rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import rnncore
from rnncore.models import CellConfig, LanguageModel, LanguageModelConfig
from tests.strategies import randomize

FEATURES, TAGS, VOCABULARY = 23, 53, 61


class Mixer(rnncore.Cell):
    """A user's own cell: its state is a sum without bounds, so that nothing is known about the range of s."""

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__(input_size, output_size=size, state_sizes={"s": size})
        self.read = nn.Linear(input_size, size)
        self.mix = nn.Linear(size, size)

    def project(self, x: Tensor) -> Tensor:
        return self.read(x)

    def step(self, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        s = 0.7 * s + z + 0.1 * torch.relu(self.mix(s))
        return s, s


class Deep(nn.Module):
    """Every kind of cell one after the other, and a head: [batch, time, FEATURES] -> [batch, time, TAGS]."""

    def __init__(self) -> None:
        super().__init__()
        cells = [
            rnncore.GRUCell(FEATURES, 43, reset="after", learn_initial_state=True),
            rnncore.LSTMCell(43, 37, peephole="current", learn_initial_state=True),
            rnncore.LSTMCell(37, 41, projection=31),
            rnncore.RNNCell(31, 47),
            Mixer(47, 37),
            rnncore.GRUCell(37, 41, reset="before"),
            rnncore.LSTMCell(41, 37, layer_norm=True, coupled=True),
            rnncore.MinGRUCell(37, 43),
        ]
        self.stack = rnncore.Stacked([rnncore.Recurrent(cell) for cell in cells])
        self.head = nn.Linear(43, TAGS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stack(x)[0])


def deep() -> Deep:
    return randomize(Deep().eval(), seed=7)


def text_model() -> LanguageModel:
    """Embedding and head share their weights."""
    cells = (CellConfig.named("lstm", 47), CellConfig.named("gru-simple", 41))
    return randomize(LanguageModel(LanguageModelConfig(VOCABULARY, 41, cells, tied=True)).eval(), seed=8)


class BothWays(nn.Module):
    """A bidirectional layer that takes lengths, and returns what torch's does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(FEATURES, 37, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Product(nn.Module):
    """One large product before a small recurrence that stays in float32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.linear.weight = nn.Parameter(weight)
        self.rnn = nn.RNN(weight.shape[0], 2, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.linear(x)
        return y, self.rnn(y)[0]
