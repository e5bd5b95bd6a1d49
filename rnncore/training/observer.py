"""What training tells whoever watches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class StepReport:
    """One optimiser step, counted from 1.

    loss: mean over the step's tokens (or other terms of the loss), in nats.
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
    """One pass over the training texts, counted from 1; losses are means over tokens (or other terms), in nats.

    metrics: what the model's ``metrics`` counted on the held-out examples, as means.
    """

    epoch: int
    training_loss: float
    held_out_loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)

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

    def finished(self) -> None:
        """Training has ended, by itself or because it failed or was interrupted."""


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def started(self, *, step: int, steps: int) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.started(step=step, steps=steps)

    def stepped(self, report: StepReport) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.stepped(report)

    def finished_epoch(self, report: EpochReport) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.finished_epoch(report)

    def saved(self, path: Path) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.saved(path)

    def finished(self) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.finished()
