"""How to train, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, raise_all


@dataclass(frozen=True)
class TrainingSettings:
    """What the optimisation depends on.  Equal settings, model, data and CPU give equal weights, bit for bit.

    epochs: passes over the training tokens.
    batch: rows that are read side by side, each a contiguous part of the data.
    bptt: time steps that gradients flow back; the state is carried on beyond them.
    learning_rate: the peak, reached after ``warmup``; then it falls along a half cosine to a hundredth of it.
    warmup: fraction of all steps in which the learning rate rises from zero.
    weight_decay: AdamW's.
    clip: largest L2 norm of the gradient, of the loss summed over ``bptt`` steps and averaged over rows.
    seed: of the weights and of dropout.
    patience: stop when the held-out loss has not fallen for so many epochs, and take the weights of the best one; None
        for all epochs and the last weights.
    """

    epochs: int = 4
    batch: int = 16
    bptt: int = 64
    learning_rate: float = 8e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 10.0
    seed: int = 1
    patience: int | None = None

    def __post_init__(self) -> None:
        counts = ("epochs", "batch", "bptt")
        problems = [problem for name in counts for problem in count_problems(name, getattr(self, name))]
        problems += [
            f"{name} is {getattr(self, name)!r}, expected a finite number above 0"
            for name in ("learning_rate", "clip")
            if not 0.0 < getattr(self, name) < float("inf")
        ]
        if not 0.0 <= self.warmup < 1.0:
            problems.append(f"warmup is {self.warmup!r}, expected a fraction from 0 to below 1")
        if not 0.0 <= self.weight_decay < float("inf"):
            problems.append(f"weight_decay is {self.weight_decay!r}, expected 0 or more")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            problems.append(f"seed is {self.seed!r}, expected an integer from 0 to 2**63 - 1")
        if self.patience is not None:
            problems += count_problems("patience", self.patience, instead=", or None")
        raise_all(problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingSettings:
        """Read :meth:`to_dict`; raises InputError for unknown or missing names."""
        names = {field.name for field in fields(cls)}
        if values.keys() != names:
            raise InputError(f"training settings have the names {sorted(values)}, expected {sorted(names)}")
        return cls(**values)
