"""What training tells whoever watches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StepReport:
    """One optimiser step, counted from 1.

    loss: mean over the step's tokens, in nats.
    tokens: predicted in this step.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    tokens: int
    learning_rate: float


@dataclass(frozen=True)
class EpochReport:
    """One pass over the training texts, counted from 1; losses are means over tokens, in nats."""

    epoch: int
    training_loss: float
    held_out_loss: float

    @property
    def training_perplexity(self) -> float:
        """``exp(training_loss)``, measured while training: with dropout, by weights that still change."""
        return math.exp(self.training_loss)

    @property
    def held_out_perplexity(self) -> float:
        """``exp(held_out_loss)``."""
        return math.exp(self.held_out_loss)


class Observer:
    """Watches and does nothing; override what is of interest."""

    def started(self, *, step: int, steps: int) -> None:
        """Training begins, after ``step`` of ``steps`` optimiser steps (0 unless resumed)."""

    def stepped(self, report: StepReport) -> None:
        """One optimiser step is done."""

    def finished_epoch(self, report: EpochReport) -> None:
        """One pass is done, and the held-out texts are scored."""

    def saved(self, path: Path) -> None:
        """A checkpoint is on disk."""
