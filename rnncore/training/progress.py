"""Training as it is shown: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from rnncore.training.observer import EpochReport, Observer, StepReport

_SMOOTHING = 0.98  # of the loss shown: about the mean of the last 50 steps
_LINE_EVERY_S = 10.0
_LARGEST_EXPONENT = 700.0  # a float holds no larger perplexity


class TrainProgress(Observer):
    """Shows loss, terms of it a second and the time left.

    Args:
        console: where; standard error unless given.
        line_every_s: seconds between two lines where there is no terminal.
        perplexity: show ``exp(loss)`` too; for losses that are negative log-probabilities.
        unit: what a term of the loss is called.
    """

    def __init__(
        self,
        console: Console | None = None,
        line_every_s: float = _LINE_EVERY_S,
        *,
        perplexity: bool = True,
        unit: str = "tokens",
    ) -> None:
        self._console = console or Console(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)
        self._perplexity = perplexity
        self._unit = unit
        self._line_every_s = line_every_s
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._loss = math.nan
        self._tokens = 0
        self._steps = 0
        self._start = self._shown = time.monotonic()

    def started(self, *, step: int, steps: int) -> None:
        """Start the clock, and the bar on a terminal."""
        self._start = self._shown = time.monotonic()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._console, expand=True)
            self._task = self._bar.add_task("starting", total=steps, completed=step)
            self._bar.start()

    def stepped(self, report: StepReport) -> None:
        """Move the bar, or write a line if the last one is some seconds ago."""
        self._steps += 1
        self._tokens += report.tokens
        # A running mean that does not start at an arbitrary value: the weight of the new one falls from 1.
        weight = max(1.0 - _SMOOTHING, 1.0 / self._steps)
        self._loss = report.loss if self._steps == 1 else (1.0 - weight) * self._loss + weight * report.loss
        if self._bar is not None:
            self._bar.update(self._task, completed=report.step, description=self._describe(report))
        elif time.monotonic() - self._shown >= self._line_every_s:
            self._shown = time.monotonic()
            self._console.print(f"step {report.step}/{report.steps}  {self._describe(report)}")

    def finished_epoch(self, report: EpochReport) -> None:
        """Write a line that stays."""
        parts = [
            f"training loss {self._with_perplexity(report.training_loss, ' ({})')}",
            f"held-out loss {self._with_perplexity(report.held_out_loss, ' ({})')}",
            *(f"{name} {value:.4f}" for name, value in report.metrics.items()),
        ]
        self._console.print(Text(f"epoch {report.epoch} done: {', '.join(parts)}", style="bold"))

    def saved(self, path: Path) -> None:
        """Not shown: where the checkpoint is was said at the start."""

    def finished(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()

    def _with_perplexity(self, loss: float, form: str) -> str:
        if not self._perplexity or loss > _LARGEST_EXPONENT:
            return f"{loss:.4f}"
        return f"{loss:.4f}" + form.format(f"perplexity {math.exp(loss):.3f}")

    def _describe(self, report: StepReport) -> str:
        seconds = max(1e-9, time.monotonic() - self._start)
        left = (report.steps - report.step) * seconds / self._steps
        return (
            f"epoch {report.epoch}/{report.epochs}  loss {self._with_perplexity(self._loss, '  {}')}  "
            f"{self._tokens / seconds:,.0f} {self._unit}/s  ETA {int(left // 60)}:{int(left % 60):02d}"
        )
