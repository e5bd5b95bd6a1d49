"""What :func:`rnncore.training.fit` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rnncore.training.observer import EpochReport


@dataclass(frozen=True)
class FitReport:
    """A training run; the model holds the weights of ``best_epoch``.

    epochs: one report for each epoch that was trained, the first one first.
    stopped_early: the held-out loss had not fallen for ``patience`` epochs.
    """

    epochs: tuple[EpochReport, ...]
    stopped_early: bool

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest held-out loss, counted from 1."""
        return best_of(self.epochs).epoch

    @property
    def best(self) -> EpochReport:
        """The report of :attr:`best_epoch`."""
        return best_of(self.epochs)


def best_of(history: Sequence[EpochReport]) -> EpochReport:
    """The report with the lowest held-out loss, the first one of equals."""
    return min(history, key=lambda report: report.held_out_loss)


def should_stop(history: Sequence[EpochReport], patience: int | None) -> bool:
    """True when the held-out loss has not fallen below its minimum for ``patience`` epochs."""
    return bool(history) and patience is not None and history[-1].epoch - best_of(history).epoch >= patience
