"""How :func:`rnncore.training.fit` trains, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import raise_all

PRECISIONS = ("no", "bf16", "fp16")
SCHEDULES = ("cosine", "constant")
KEPT = ("best", "last")
WARMUP = 0.05
"""Fraction of all steps in which the learning rate rises."""


@dataclass(frozen=True)
class FitSettings:
    """The arguments of :func:`rnncore.training.fit` that are plain values; InputError lists all that are out of range."""

    epochs: int
    batch: int
    learning_rate: float
    clip: float | None
    patience: int | None
    seed: int
    mixed_precision: str
    schedule: str
    weight_decay: float
    average: float
    keep: str

    def __post_init__(self) -> None:
        problems = [
            *count_problems("epochs", self.epochs),
            *count_problems("batch", self.batch),
            *count_problems("seed", self.seed, 0),
            *count_problems("patience", 1 if self.patience is None else self.patience),
        ]
        problems += [
            f"{name} is {value!r}, expected a finite number above 0"
            for name, value in (
                ("learning_rate", self.learning_rate),
                ("clip", 1.0 if self.clip is None else self.clip),
            )
            if not 0.0 < value < float("inf")
        ]
        if not 0.0 <= self.weight_decay < float("inf"):
            problems.append(f"weight_decay is {self.weight_decay!r}, expected 0 or more")
        if not 0.0 <= self.average < 1.0:
            problems.append(f"average is {self.average!r}, expected 0 (no averaging) or more, and below 1")
        problems += [
            f"{name} is {value!r}, expected one of: {', '.join(known)}"
            for name, value, known in (
                ("mixed_precision", self.mixed_precision, PRECISIONS),
                ("schedule", self.schedule, SCHEDULES),
                ("keep", self.keep, KEPT),
            )
            if value not in known
        ]
        raise_all(problems)

    def fixed(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one it goes on from."""
        values = asdict(self)
        del values["epochs"], values["patience"], values["keep"]
        if not self.average:
            del values["average"]  # which checkpoints of earlier versions do not have
        return values
