"""How far one answer is from another."""

from __future__ import annotations

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


def rms_error(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """Root mean square of the error as a part of that of the expected values (or of 1e-6 where they are all zero)."""
    if not expected.size:
        return 0.0
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    value = float(np.sqrt(np.mean((got - expected) ** 2)) / max(1e-6, np.sqrt(np.mean(expected**2))))
    return value if np.isfinite(value) else float("inf")
