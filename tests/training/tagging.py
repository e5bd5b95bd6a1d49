"""A tagger of ragged sequences that trains in a second, and the command line that trains it in several processes."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore import LSTM
from rnncore.training import FitReport, Observer, fit

Example = tuple[Tensor, Tensor]
FEATURES, HIDDEN, TAGS = 3, 7, 5


class Tagger(nn.Module):
    """Weights depend on the seed only."""

    def __init__(self, seed: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layer = LSTM(FEATURES, HIDDEN, batch_first=True)
            self.head = nn.Linear(HIDDEN, TAGS)
            self.unused = nn.Linear(2, 3)  # several processes must not wait for its gradient
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y, _ = self.layer(x, lengths=lengths)
        return self.head(self.dropout(y))

    def loss(self, x: Tensor, lengths: Tensor, tags: Tensor) -> tuple[Tensor, int]:
        logits = self(x, lengths)
        loss = functional.cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=-1, reduction="sum")
        return loss, int(lengths.sum())

    def metrics(self, x: Tensor, lengths: Tensor, tags: Tensor) -> dict[str, tuple[float, int]]:
        right = self(x, lengths).argmax(2) == tags
        return {"accuracy": (float(right.sum()), int(lengths.sum()))}


def examples(number: int, seed: int) -> list[Example]:
    """Random walks of 1 to 11 steps; the tag says how high the walk is."""
    random = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(number):
        steps = int(torch.randint(1, 12, (), generator=random))
        x = torch.randn(steps, FEATURES, generator=random)
        made.append((x, x.cumsum(0).sum(1).clamp(-2, 2).round().long() + 2))
    return made


def collate(rows: list[Example]) -> dict[str, Tensor]:
    """Padding: NaN, which must not matter, and -1."""
    lengths = torch.tensor([len(x) for x, _ in rows])
    x = torch.full((len(rows), int(lengths.max()), FEATURES), float("nan"))
    tags = torch.full(x.shape[:2], -1)
    for row, (values, wanted) in enumerate(rows):
        x[row, : len(values)] = values
        tags[row, : len(values)] = wanted
    return {"x": x, "lengths": lengths, "tags": tags}


TRAINING, HELD_OUT = examples(53, 2), examples(17, 3)


def train(model: Tagger, **options: Any) -> FitReport:
    choices: dict[str, Any] = {"epochs": 3, "batch": 8, "learning_rate": 0.02, "observer": Observer(), **options}
    return fit(model, TRAINING, HELD_OUT, collate=collate, **choices)


if __name__ == "__main__":
    torch.set_num_threads(1)
    model = Tagger()
    report = train(model, checkpoint=sys.argv[1], log_dir=sys.argv[2])
    assert all(parameter.isfinite().all() for parameter in model.parameters())
