"""Vectors of an embedder as points of a plane."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnncore.plots.figure import COLOURS, drawing
from rnncore.runtime.errors import InputError

_MARKERS = "osD^v<>PX*"


def plot_embedding_map(vectors: Any, labels: Sequence[str], out: str | Path, *, title: str = "") -> None:
    """Draw each vector as a point, in the plane in which they differ most (their first two principal components).

    The axes say which part of the whole spread they show: where that is little, points that lie together may be far apart.

    Args:
        vectors: [vectors, size], such as those of ``Embedder.embed_many``.
        labels: one for each; up to 60 look different.
        out: picture to write, .png, .svg or .pdf.
        title: above the picture.

    Raises:
        InputError: fewer than two vectors, other numbers of labels, values that are not finite, or another ending of ``out``.
    """
    rows = np.asarray(vectors, np.float64)
    if rows.ndim != 2 or len(rows) < 2 or len(rows) != len(labels) or not np.isfinite(rows).all():
        raise InputError(
            f"vectors are {list(rows.shape)} with {len(labels)} labels, expected [at least 2, size] of finite numbers and "
            "one label for each"
        )
    points, shares = principal_plane(rows)
    names = list(dict.fromkeys(labels))
    of = np.array([names.index(label) for label in labels])
    with drawing(out, 6.8, 5.2) as figure:
        axes = figure.subplots()
        for i, name in enumerate(names):
            mine = points[of == i]
            colour = COLOURS[i % len(COLOURS)]
            marker = _MARKERS[i // len(COLOURS) % len(_MARKERS)]
            axes.scatter(
                mine[:, 0], mine[:, 1], s=22, color=colour, marker=marker, alpha=0.75, linewidths=0, label=name
            )
        axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the spread)")
        axes.set_ylabel(f"second ({shares[1]:.0%})")
        axes.set_aspect("equal", adjustable="datalim")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.93")
        axes.set_axisbelow(True)
        columns = 1 + (len(names) - 1) // 20
        axes.legend(frameon=False, fontsize=8, ncols=columns, loc="center left", bbox_to_anchor=(1.0, 0.5))
        if title:
            axes.set_title(title, fontsize=11)


def principal_plane(rows: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Coordinates [rows, 2] along the first two principal components, and which part of the variance each one has."""
    centred = rows - rows.mean(0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(rows), 2))
    known = min(2, len(lengths))
    points[:, :known] = left[:, :known] * lengths[:known]
    squares = np.append(lengths**2, 0.0)
    whole = squares.sum() or 1.0
    return points, (float(squares[0] / whole), float(squares[1] / whole))
