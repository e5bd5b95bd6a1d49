"""Gradient norm against distance: which cells can learn what was long ago."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rnncore.plots.figure import COLOURS, drawing
from rnncore.runtime.errors import InputError

_SMALLEST = 1e-12  # of the largest; below, the picture would show float rounding


def plot_gradient_norms(
    norms: Mapping[str, Sequence[float]], out: str | Path, *, title: str = "How far back gradients reach"
) -> None:
    """Draw each curve on a logarithmic scale, relative to its first value.

    Args:
        norms: label -> norm at distance 0, 1, ..., as :func:`rnncore.training.gradient_norms` gives them.  Labels that are
            equal up to a part in brackets, such as "LSTM (before)", share a colour; the first of them is dashed.
        out: picture to write, .png, .svg or .pdf.
        title: above the picture.

    Raises:
        InputError: no curves, or one that is empty or starts at 0.
    """
    curves = {label: [float(value) for value in values] for label, values in norms.items()}
    wrong = [label for label, values in curves.items() if not values or not values[0] > 0]
    if not curves or wrong:
        raise InputError(f"norms of {', '.join(wrong) or 'nothing'}: expected at least one value, the first above 0")
    families = list(dict.fromkeys(_family(label) for label in curves))
    with drawing(out, 7.5, 4.6) as figure:
        axes = figure.subplots()
        seen: set[str] = set()
        for label, values in curves.items():
            family = _family(label)
            is_dashed = family not in seen and sum(_family(other) == family for other in curves) > 1
            seen.add(family)
            axes.plot(
                [max(value / values[0], _SMALLEST) for value in values],
                color=COLOURS[families.index(family) % len(COLOURS)],
                linestyle="--" if is_dashed else "-",
                linewidth=1.8,
                label=label,
            )
        axes.set_yscale("log")
        axes.set_xlabel("distance from the loss (time steps)")
        axes.set_ylabel("gradient norm, relative to distance 0")
        axes.set_title(title)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)


def _family(label: str) -> str:
    return label.partition("(")[0].strip()
