"""Which labels are taken for which: a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rnncore.plots.figure import drawing
from rnncore.runtime.errors import InputError

_INCHES_OF_A_LABEL = 0.55
_INCHES_OF_A_CHARACTER = 0.1
_MOST_NUMBERS = 25  # labels up to which every square has its number


def plot_confusion(
    wanted: Sequence[str],
    found: Sequence[str],
    out: str | Path,
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw how often each label was answered where another was right: rows are right, columns answered.

    Colours are parts of a row, so that rare labels are seen; numbers are counts.

    Args:
        wanted, found: the right label and the answer of every example.
        out: picture to write, .png, .svg or .pdf.
        labels: which, in this order; those of ``wanted``, then others of ``found``, sorted, unless given.
        title: above the picture; the accuracy stands behind it.

    Raises:
        InputError: no examples, not as many answers, a label that is not among ``labels``, or another ending of ``out``.
    """
    if not len(wanted) or len(wanted) != len(found):
        raise InputError(f"{len(wanted)} right labels and {len(found)} answers, expected as many, at least one")
    names = [*sorted(set(wanted)), *sorted(set(found) - set(wanted))] if labels is None else list(labels)
    unknown = sorted((set(wanted) | set(found)) - set(names))
    if unknown:
        raise InputError(f"labels are {', '.join(names)}, expected {', '.join(unknown)} among them")
    counts = confusion_counts(wanted, found, names)
    size = max(3.2, _INCHES_OF_A_LABEL * len(names))
    margin = 1.0 + _INCHES_OF_A_CHARACTER * max(map(len, names))
    with drawing(out, size + margin + 1.2, size + margin) as figure:
        axes = figure.subplots()
        shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
        image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if len(names) <= _MOST_NUMBERS:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
        axes.set_xlabel("answered")
        axes.set_ylabel("right")
        accuracy = f"{np.trace(counts) / counts.sum():.1%} of {counts.sum()} right"
        axes.set_title(f"{title}: {accuracy}" if title else accuracy, fontsize=10)
        figure.colorbar(image, ax=axes, fraction=0.04, label="part of the row")


def confusion_counts(wanted: Sequence[str], found: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """How often label j was answered where label i was right, int64 [labels, labels]."""
    places = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(places), len(places)), np.int64)
    np.add.at(counts, ([places[one] for one in wanted], [places[one] for one in found]), 1)
    return counts
