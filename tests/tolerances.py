"""The one table of tolerances: (dtype, kind of comparison) -> bound, why, worst error seen.

Errors are counted in *units*: multiples of ``eps(dtype) * depth * (1 + length) * magnitude``, where depth is the number
of layers, length the number of time steps and magnitude the largest absolute number that took part (at least 1).  Each
layer and each step may add a rounding error; a recurrence that makes errors grow makes its values grow alike, which
magnitude covers.  :func:`bound` turns a row of the table into an absolute error.

To refresh "worst seen": ``RNNCORE_WORST=1 pytest ...`` prints what each row met.
"""

from __future__ import annotations

import atexit
import os
from collections import defaultdict
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """``units`` allowed, the reason for that number, and the worst met so far in these tests (same units)."""

    units: float
    why: str
    worst_seen: float


TABLE: dict[tuple[str, str], Tolerance] = {
    ("float64", "oracle"): Tolerance(64, "other order of sums than NumPy's", 0),
}

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}

worst: dict[tuple[str, str], float] = defaultdict(float)
"""Worst units met by each row in this process."""


def unit(dtype: str, *, depth: int = 1, length: int = 1, magnitude: float = 1.0) -> float:
    """Absolute size of one unit of error."""
    return EPSILON[dtype] * max(depth, 1) * (1 + length) * max(magnitude, 1.0)


def bound(dtype: str, kind: str, *, depth: int = 1, length: int = 1, magnitude: float = 1.0) -> float:
    """Largest absolute error allowed: ``dtype`` is the coarser of the two sides, ``kind`` a row of :data:`TABLE`."""
    return TABLE[dtype, kind].units * unit(dtype, depth=depth, length=length, magnitude=magnitude)


def differences(
    actual: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
    dtype: str,
    kind: str,
    *,
    depth: int = 1,
    length: int = 1,
    magnitude: float = 1.0,
) -> list[str]:
    """One line for every named array that is missing, has another shape or differs by more than the table allows.

    ``magnitude`` is raised to the largest finite number in ``expected``; NaN anywhere in ``actual`` is a difference.
    """
    largest = max((float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a))) for a in expected.values()), default=0.0)
    sizes = {"depth": depth, "length": length, "magnitude": max(magnitude, largest, 1.0)}
    allowed = bound(dtype, kind, **sizes)
    lines = [f"{name}: only on one side" for name in sorted(actual.keys() ^ expected.keys())]
    for name in expected.keys() & actual.keys():
        got, want = np.asarray(actual[name], np.float64), np.asarray(expected[name], np.float64)
        if got.shape != want.shape:
            lines.append(f"{name}: shape {got.shape}, expected {want.shape}")
            continue
        with np.errstate(invalid="ignore"):
            error = float(np.max(np.abs(got - want), initial=0.0))
        if not error <= allowed:
            lines.append(f"{name}: differs by {error:.3g}, allowed {allowed:.3g} ({dtype}, {kind}, {sizes})")
        else:
            worst[dtype, kind] = max(worst[dtype, kind], error / unit(dtype, **sizes))
    return lines


def _print_worst() -> None:
    for (dtype, kind), units in sorted(worst.items()):
        print(f"{dtype:9} {kind:16} worst {units:10.4g} units, allowed {TABLE[dtype, kind].units:g}")


if os.environ.get("RNNCORE_WORST"):
    atexit.register(_print_worst)
