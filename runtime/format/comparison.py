"""How far one answer is from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def error(got: NDArray[Any], expected: NDArray[Any]) -> tuple[float, float]:
    """(max absolute error, the same as a part of the largest expected value or 1); NaN and inf must be in the same places."""
    if got.shape != expected.shape:
        return float("inf"), float("inf")
    if not expected.size:
        return 0.0, 0.0
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(got[~finite], expected[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return float("inf"), float("inf")
    if not finite.any():
        return 0.0, 0.0
    worst = float(np.abs(got[finite] - expected[finite]).max())
    return worst, worst / max(1.0, float(np.abs(expected[finite]).max()))


def rms_error(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """Root mean square of (got - expected) over all pairs, as a part of that of the expected values.

    Integers and booleans count as wrong or right; infinite where the shapes differ or NaN and infinities do not match.
    """
    wrong, size, count = 0.0, 0.0, 0
    for got, expected in pairs:
        if got.shape != expected.shape:
            return float("inf")
        if expected.dtype.kind != "f":
            wrong, size = wrong + float((got != expected).sum()), size + expected.size
            continue
        finite = np.isfinite(expected)
        if not np.array_equal(got[~finite], expected[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
            return float("inf")
        exact = expected[finite].astype(np.float64)
        wrong += float(((got[finite] - exact) ** 2).sum())
        size += float((exact**2).sum())
        count += exact.size
    return float(np.sqrt(wrong / size)) if size else float(np.sqrt(wrong / max(count, 1)))
