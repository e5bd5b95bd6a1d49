"""Learning curves: loss and metrics of a training run, epoch by epoch."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnncore.plots.figure import COLOURS, drawing
from rnncore.runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOSSES = {"training_loss": "training", "held_out_loss": "held out"}
_STEPS = "steps.csv"
_SMOOTHED_STEPS = 100  # so many points are left of the losses of single steps


def plot_learning(metrics: str | Path | Sequence[Mapping[str, float]], out: str | Path) -> None:
    """Draw losses, and each further column, against the epoch; the best epoch is marked.

    Args:
        metrics: a ``metrics.csv`` that a training wrote (the losses of single steps are drawn too where ``steps.csv`` lies
            beside it), or its rows: ``epoch``, ``training_loss``, ``held_out_loss``, and any metrics.
        out: picture to write, .png, .svg or .pdf.

    Raises:
        InputError: no such rows, or another ending of ``out``.
    """
    if isinstance(metrics, str | Path):
        rows = _read(Path(metrics))
        steps = _smoothed_steps(Path(metrics).with_name(_STEPS))
    else:
        rows = [dict(row) for row in metrics]
        steps = []
    if not rows or any(name not in row for row in rows for name in ("epoch", *_LOSSES)):
        raise InputError(f"no rows with epoch, {' and '.join(_LOSSES)}: expected the metrics.csv of a training")
    others = [name for name in rows[0] if name not in ("epoch", *_LOSSES)]
    panels = 1 + bool(others)
    with drawing(out, 6.5 * panels, 4.2) as figure:
        axes = figure.subplots(1, panels, squeeze=False)[0]
        _draw_losses(axes[0], rows, steps)
        if others:
            _draw_metrics(axes[1], rows, others)


def _draw_losses(axes: Axes, rows: Sequence[Mapping[str, float]], steps: Sequence[tuple[float, float]]) -> None:
    epochs = [row["epoch"] for row in rows]
    if steps:
        axes.plot(*zip(*steps, strict=True), color="0.75", linewidth=1, label="training, single steps (smoothed)")
    for (name, label), colour in zip(_LOSSES.items(), COLOURS, strict=False):
        axes.plot(epochs, [row[name] for row in rows], marker="o", markersize=4, color=colour, label=label)
    best = min(rows, key=lambda row: row["held_out_loss"])
    axes.plot(best["epoch"], best["held_out_loss"], "o", markersize=11, fillstyle="none", color=COLOURS[1])
    axes.annotate(
        f"best: {best['held_out_loss']:.4g}",
        (best["epoch"], best["held_out_loss"]),
        xytext=(-6, 14),
        textcoords="offset points",
        ha="right" if best["epoch"] > (epochs[0] + epochs[-1]) / 2 else "left",
        color=COLOURS[1],
    )
    axes.set_ylabel("loss (nats per term)")
    _finish(axes, "Loss")


def _draw_metrics(axes: Axes, rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        values = [row.get(name, math.nan) for row in rows]
        label = f"{name} (last: {values[-1]:.4g})"
        colour = COLOURS[(number + 2) % len(COLOURS)]
        axes.plot([row["epoch"] for row in rows], values, marker="o", markersize=4, color=colour, label=label)
    axes.set_ylabel(names[0] if len(names) == 1 else "value")
    _finish(axes, "Held-out examples")


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _read(path: Path) -> list[dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        try:
            return [
                {name: float(value) for name, value in row.items() if value not in ("", None)}
                for row in csv.DictReader(file)
            ]
        except (ValueError, TypeError, AttributeError, csv.Error) as error:
            raise InputError(f"{path} is not the metrics.csv of a training ({error})") from None


def _smoothed_steps(path: Path) -> list[tuple[float, float]]:
    """(position in epochs, loss) of means over neighbouring steps; nothing when there is no such file."""
    if not path.exists():
        return []
    rows = _read(path)
    if not rows or any(name not in row for row in rows for name in ("step", "epoch", "loss")):
        return []
    steps_an_epoch = max(1.0, rows[-1]["step"] / rows[-1]["epoch"])
    width = max(1, len(rows) // _SMOOTHED_STEPS)
    groups = [rows[start : start + width] for start in range(0, len(rows), width)]
    return [
        (
            sum(row["step"] for row in group) / len(group) / steps_an_epoch,
            sum(row["loss"] for row in group) / len(group),
        )
        for group in groups
    ]
