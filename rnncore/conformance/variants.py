"""Every kind of cell that rnncore ships, over wide inputs and below a wide head, for the conformance table."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rnncore.cells import Cell, GRUCell, LSTMCell, MinGRUCell, MinLSTMCell, RNNCell
from rnncore.layers import Bidirectional, Recurrent

INPUT, HIDDEN, PROJECTION, HEAD = 40, 16, 8, 600

CELLS: dict[str, Callable[[], Cell]] = {
    "RNN tanh": lambda: RNNCell(INPUT, HIDDEN),
    "RNN relu": lambda: RNNCell(INPUT, HIDDEN, activation="relu"),
    "GRU reset after": lambda: GRUCell(INPUT, HIDDEN),
    "GRU reset before": lambda: GRUCell(INPUT, HIDDEN, reset="before"),
    "GRU no reset": lambda: GRUCell(INPUT, HIDDEN, reset=None),
    "LSTM": lambda: LSTMCell(INPUT, HIDDEN),
    "LSTM peephole current": lambda: LSTMCell(INPUT, HIDDEN, peephole="current"),
    "LSTM peephole previous": lambda: LSTMCell(INPUT, HIDDEN, peephole="previous"),
    "LSTM projection": lambda: LSTMCell(INPUT, HIDDEN, projection=PROJECTION),
    "LSTM coupled": lambda: LSTMCell(INPUT, HIDDEN, coupled=True),
    "LSTM layer norm": lambda: LSTMCell(INPUT, HIDDEN, layer_norm=True),
    "minGRU": lambda: MinGRUCell(INPUT, HIDDEN),
    "minLSTM": lambda: MinLSTMCell(INPUT, HIDDEN),
}
DIRECTIONS = ("forward", "reverse", "bidirectional")


class Variants(nn.Module):
    """Chosen cells side by side on one input, all in one direction, a head each: [batch, time, INPUT] -> [batch, time, HEAD]."""

    def __init__(self, direction: str, names: tuple[str, ...], seed: int) -> None:
        super().__init__()
        self.outputs = {name: f"y{index}" for index, name in enumerate(CELLS) if name in names}
        self.layers = nn.ModuleDict({output: _layer(name, direction) for name, output in self.outputs.items()})
        sizes = {name: CELLS[name]().output_size * (1 + (direction == "bidirectional")) for name in self.outputs}
        self.heads = nn.ModuleDict({output: nn.Linear(sizes[name], HEAD) for name, output in self.outputs.items()})
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                spread = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.5
                parameter.add_(spread * torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """One output for each cell."""
        return {output: self.run(output, x, None, lengths)[0] for output in self.layers}

    def run(
        self, output: str, x: Tensor, states: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One output, and the final states of its layer."""
        y, finals = self.layers[output](x, states, lengths)
        return self.heads[output](y), finals


def _layer(name: str, direction: str) -> nn.Module:
    if direction == "bidirectional":
        return Bidirectional(CELLS[name](), CELLS[name]())
    return Recurrent(CELLS[name](), reverse=direction == "reverse")
