"""A training run written down: ``metrics.csv``, ``steps.csv``, TensorBoard events, a learning curve."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rnncore.runtime.format.atomic import replacing
from rnncore.training.observer import EpochReport, Observer, StepReport

METRICS = "metrics.csv"
STEPS = "steps.csv"
CURVE = "learning_curve.png"


class RunLog(Observer):
    """Writes into a folder, after every epoch, so that each file is whole at any time.

    ``metrics.csv``: a row an epoch; ``steps.csv``: a row an optimiser step; ``learning_curve.png`` where matplotlib is
    installed; TensorBoard events where ``tensorboard`` or ``tensorboardX`` is.  A resumed run goes on in the same files;
    a new one replaces them.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._epochs: dict[int, Mapping[str, Any]] = {}
        self._steps: dict[int, Mapping[str, Any]] = {}
        self._events: Any = None

    def started(self, *, step: int, steps: int) -> None:
        """Take over the rows of the run that this one goes on from."""
        if step:
            self._steps = {int(row["step"]): row for row in read_rows(self.folder / STEPS) if int(row["step"]) <= step}
            self._epochs = {int(row["epoch"]): row for row in read_rows(self.folder / METRICS)}
        self._events = _event_writer(self.folder, step)

    def stepped(self, report: StepReport) -> None:
        """Note the step."""
        self._steps[report.step] = {
            "step": report.step,
            "epoch": report.epoch,
            "loss": report.loss,
            "tokens": report.tokens,
            "learning_rate": report.learning_rate,
        }
        if self._events is not None:
            self._events.add_scalar("training/loss", report.loss, report.step)
            self._events.add_scalar("training/learning_rate", report.learning_rate, report.step)

    def finished_epoch(self, report: EpochReport) -> None:
        """Write the files."""
        self._epochs = {epoch: row for epoch, row in self._epochs.items() if epoch < report.epoch}
        self._epochs[report.epoch] = {
            "epoch": report.epoch,
            "training_loss": report.training_loss,
            "held_out_loss": report.held_out_loss,
            **report.metrics,
        }
        _write_rows(self.folder / METRICS, list(self._epochs.values()))
        _write_rows(self.folder / STEPS, list(self._steps.values()))
        if self._events is not None:
            for name, value in {"loss": report.held_out_loss, **report.metrics}.items():
                self._events.add_scalar(f"held_out/{name}", value, max(self._steps, default=report.epoch))
            self._events.flush()

    def saved(self, path: Path) -> None:
        """Write the steps that the checkpoint holds: a run that goes on from it finds them."""
        _write_rows(self.folder / STEPS, list(self._steps.values()))

    def finished(self) -> None:
        """Draw the learning curve, close the events."""
        if self._events is not None:
            self._events.close()
        if self._epochs and find_spec("matplotlib") is not None:
            from rnncore.plots.learning import plot_learning

            plot_learning(self.folder / METRICS, self.folder / CURVE)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a head line; none when there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_rows(path: Path, rows: list[Mapping[str, Any]]) -> None:
    if not rows:
        return
    names = dict.fromkeys(name for row in rows for name in row)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(names), restval="")
        writer.writeheader()
        writer.writerows(rows)


def _event_writer(folder: Path, step: int) -> Any:
    """Of PyTorch with ``tensorboard``, else of ``tensorboardX``, else None."""
    if find_spec("tensorboard") is not None:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder), purge_step=step + 1)
    if find_spec("tensorboardX") is not None:
        return importlib.import_module("tensorboardX").SummaryWriter(str(folder), purge_step=step + 1)
    return None
