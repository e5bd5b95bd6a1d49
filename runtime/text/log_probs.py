"""Whether numbers are log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

SUM_TOLERANCE = 1e-3
"""Of the logarithm of a sum of probabilities: float32 over a large vocabulary, or int8, keeps well within."""


def log_probability_problem(values: Any) -> str:
    """Why ``values`` [..., classes] are not natural-log probabilities; empty if they are."""
    with np.errstate(invalid="ignore"):  # NaN is reported, as every other wrong sum
        totals = np.logaddexp.reduce(np.asarray(values, np.float64), axis=-1)
    if not totals.size or (np.abs(totals) <= SUM_TOLERANCE).all():
        return ""
    worst = totals.flat[np.argmax(np.nan_to_num(np.abs(totals), nan=np.inf))]
    return f"not log-probabilities (they sum to exp({worst:.3g}), expected 1): end its forward with log_softmax"
