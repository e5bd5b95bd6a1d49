"""Which cells can learn what was long ago, before and after trying: python examples/vanishing_gradients.py runs/gradients.png

The task: the first number of a sequence says what to answer at its end; everything between is noise.  Gates help if they
start open: with torch's biases of about 0 they halve the state at every step, and gradients vanish faster than a plain
RNN's.  So "open" cells begin with a bias of 3, a gate of 0.95, on what keeps the state.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore import Cell, GRUCell, LSTMCell, Recurrent, RNNCell
from rnncore.plots.gradient_norms import plot_gradient_norms
from rnncore.training import Observer, fit, gradient_norms

Example = tuple[Tensor, int]
HIDDEN = 32


def open_gates(cell: GRUCell | LSTMCell) -> GRUCell | LSTMCell:
    """Bias of the second block, the LSTM's forget gate and the GRU's z, to 3."""
    with torch.no_grad():
        cell.bias_ih[HIDDEN : 2 * HIDDEN] = 3.0
    return cell


CELLS: dict[str, Callable[[], Cell]] = {
    "RNN": lambda: RNNCell(1, HIDDEN),
    "LSTM, gates half open": lambda: LSTMCell(1, HIDDEN),
    "LSTM, gates open": lambda: open_gates(LSTMCell(1, HIDDEN)),
    "GRU, gates open": lambda: open_gates(GRUCell(1, HIDDEN)),
}


class Rememberer(nn.Module):
    """One recurrent layer, and an answer from its last output."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.layer = Recurrent(cell)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.layer(x)
        return self.head(y[:, -1])

    def loss(self, x: Tensor, answer: Tensor) -> tuple[Tensor, int]:
        return functional.cross_entropy(self(x), answer, reduction="sum"), len(x)

    def metrics(self, x: Tensor, answer: Tensor) -> dict[str, tuple[float, int]]:
        return {"accuracy": (float((self(x).argmax(1) == answer).sum()), len(x))}


def examples(number: int, steps: int) -> list[Example]:
    x = 0.3 * torch.randn(number, steps, 1)
    answers = torch.randint(2, (number,))
    x[:, 0, 0] = 2.0 * answers - 1.0
    return list(zip(x, answers.tolist(), strict=True))


def collate(rows: list[Example]) -> dict[str, Tensor]:
    return {"x": torch.stack([x for x, _ in rows]), "answer": torch.tensor([answer for _, answer in rows])}


def main(out: Path, steps: int = 40, epochs: int = 5, number: int = 1500) -> dict[str, float]:
    """Train each, draw, and return how much of the gradient is left at the first step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    training, held_out = examples(number, steps), examples(200, steps)
    x = collate(held_out)["x"]
    norms, left = {}, {}
    for name, make in CELLS.items():
        model = Rememberer(make())
        norms[f"{name} (new)"] = gradient_norms(model.layer.cell, x).tolist()
        options = {"epochs": epochs, "learning_rate": 0.01, "observer": Observer()}
        report = fit(model, training, held_out, collate=collate, **options)
        accuracy = report.best.metrics["accuracy"]
        trained = gradient_norms(model.layer.cell, x).tolist()
        norms[f"{name} (trained: {accuracy:.0%} right)"] = trained
        left[name] = trained[-1] / trained[0]
        print(f"{name}: {accuracy:.0%} right; {steps - 1} steps back the gradient has {left[name]:.1e} of its size")
    out.parent.mkdir(parents=True, exist_ok=True)
    plot_gradient_norms(norms, out, title=f"Gradient of the last output, {steps} steps, the first of them matters")
    return left


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/gradients.png"))
