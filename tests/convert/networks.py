"""Modules as users write them: plain torch.nn layers, an embedding below, a head above, called in torch's ways."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tests.strategies import randomize

MODES: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "rnn tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "rnn relu": (nn.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
    "lstm proj_size": (nn.LSTM, {"proj_size": 2}),
}

OPTIONS = [
    {"mode": mode, "num_layers": layers, "bidirectional": both, "batch_first": first, "bias": True}
    for mode, layers, both, first in product(MODES, (1, 2), (False, True), (True, False))
] + [
    {"mode": mode, "num_layers": 2, "bidirectional": True, "batch_first": first, "bias": False}
    for mode, first in product(MODES, (True, False))
]


def option_id(options: dict[str, Any]) -> str:
    flags = [name for name in ("bidirectional", "batch_first", "bias") if options[name]]
    return " ".join([options["mode"], f"{options['num_layers']} layers", *flags])


class Tagger(nn.Module):
    """Embedding, recurrent layer, linear head; reads attributes of its recurrent layer as user code does."""

    def __init__(self, mode: str, **options: Any) -> None:
        super().__init__()
        kind, more = MODES[mode]
        self.embedding = nn.Embedding(23, 5)
        self.rnn = kind(5, 11, **more, **options)
        width = (getattr(self.rnn, "proj_size", 0) or self.rnn.hidden_size) * (2 if self.rnn.bidirectional else 1)
        self.head = nn.Linear(width, 3)

    def embed(self, ids: Tensor) -> Tensor:
        return self.embedding(ids)

    def forward(self, x: Tensor | PackedSequence, hx: Any = None) -> tuple[Tensor, Tensor | PackedSequence, Any]:
        self.rnn.flatten_parameters()
        y, end = self.rnn(x, hx)
        top = self.head(y.data if isinstance(y, PackedSequence) else y)
        return top, y, end


def tagger(options: dict[str, Any], seed: int = 0) -> Tagger:
    """A float64 Tagger with random weights."""
    return randomize(Tagger(**options).double(), seed)


def random_hx(module: Tagger, batch: int | None, seed: int = 0) -> Any:
    """Initial states in torch's form; ``batch`` None for unbatched ones."""
    random = torch.Generator().manual_seed(seed)
    rows = module.rnn.num_layers * (2 if module.rnn.bidirectional else 1)

    def one(size: int) -> Tensor:
        shape = (rows, size) if batch is None else (rows, batch, size)
        return torch.randn(shape, dtype=torch.float64, generator=random)

    h = one(getattr(module.rnn, "proj_size", 0) or module.rnn.hidden_size)
    return (h, one(module.rnn.hidden_size)) if isinstance(module.rnn, nn.LSTM) else h
