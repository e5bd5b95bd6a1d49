"""Training as it is shown: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from rnncore.training import EpochReport, Observer, StepReport

_SMOOTHING = 0.98  # of the loss shown: about the mean of the last 50 steps
_LINE_EVERY_S = 10.0


class TrainProgress(Observer):
    """Shows loss, perplexity, tokens a second and the time left; use it as a context."""

    def __init__(self, console: Console, line_every_s: float = _LINE_EVERY_S) -> None:
        self._console = console
        self._line_every_s = line_every_s
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._loss = math.nan
        self._tokens = 0
        self._steps = 0
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> TrainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

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
        self._console.print(
            Text(
                f"epoch {report.epoch} done: training loss {report.training_loss:.4f} "
                f"(perplexity {report.training_perplexity:.3f}), held-out loss {report.held_out_loss:.4f} "
                f"(perplexity {report.held_out_perplexity:.3f})",
                style="bold",
            )
        )

    def saved(self, path: Path) -> None:
        """Not shown: where the checkpoint is was said at the start."""

    def _describe(self, report: StepReport) -> str:
        seconds = max(1e-9, time.monotonic() - self._start)
        left = (report.steps - report.step) * seconds / self._steps
        return (
            f"epoch {report.epoch}/{report.epochs}  loss {self._loss:.4f}  perplexity {math.exp(self._loss):.3f}  "
            f"{self._tokens / seconds:,.0f} tokens/s  ETA {int(left // 60)}:{int(left % 60):02d}"
        )
