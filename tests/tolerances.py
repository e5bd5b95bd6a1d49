"""The one table of tolerances: (dtype, kind of comparison) -> bound, why, worst error seen.

Errors are counted in *units* of ``eps(dtype) * depth * (1 + length) * size * slope``:

* depth, the number of layers, and length, the number of time steps: each may add a rounding error;
* size, the largest number (at least 1) among results (magnitude) and inputs: where a recurrence makes errors grow, its
  values grow alike (recurrences that are chaotic are not drawn, see ``tests/strategies.py``);
* slope, the largest input / 8 (at least 1): what a gate sees has an error of eps * input, a sigmoid of it a quarter of
  that, and with random weights of either sign half of that; the gate then multiplies values of any size.

:func:`bound` turns a row of the table into an absolute error.  To refresh "worst seen", run the tests with
``RNNCORE_WORST=1``: what each row met is printed at the end.
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
    # The oracle is NumPy in float64.  Its worst cases were searched for (hypothesis.target, 1500 examples).
    ("float64", "oracle"): Tolerance(32, "sums in another order", 2.0),
    ("float32", "oracle"): Tolerance(32, "rounding of float32, which gates and layer norm pass on", 1.3),
    ("float64", "function"): Tolerance(1, "one activation: the last bits of exp, tanh and erf differ", 0.29),
    ("float32", "function"): Tolerance(1, "one activation: the last bits of exp, tanh and erf differ", 0.32),
    ("float64", "torch"): Tolerance(4, "torch.nn itself: same kernels, biases added in another order", 0.089),
    ("float32", "torch"): Tolerance(4, "torch.nn itself: same kernels, biases added in another order", 0.03),
    ("float64", "chunked"): Tolerance(8, "same steps, other batch size or length: products of other shapes", 0.53),
    ("float32", "chunked"): Tolerance(8, "same steps, other batch size or length: products of other shapes", 0.14),
    ("float64", "gradient"): Tolerance(
        16, "fused kernel against loop: gradients summed over time in another order", 0.7
    ),
    ("float32", "gradient"): Tolerance(
        16, "fused kernel against loop: gradients summed over time in another order", 1.3
    ),
    ("float32", "onnx"): Tolerance(16, "another library: other sums, its own exp and tanh", 0.25),
    # 1e-5 as a float32 is off by 2.5e-8 of itself, and so is the answer of a layer norm over numbers as small as that.
    ("float64", "onnx"): Tolerance(1e7, "the epsilon of ONNX's LayerNormalization is a float32", 1.2e5),
}


@dataclass(frozen=True)
class Fixed:
    """One number, absolute or relative, for comparisons whose sizes are all alike, and the reason for it."""

    bound: float
    why: str


FIXED: dict[str, Fixed] = {
    "float64 last bit": Fixed(1e-15, "the same operations in the same order"),
    "float64": Fixed(1e-12, "the same numbers of about 1, summed in another order"),
    "float64 padded gradient": Fixed(1e-11, "gradients of padded rows against those of each row alone"),
    "float64 gradient": Fixed(1e-10, "gradients of a layer, summed over time in another order"),
    "float64 sum": Fixed(1e-9, "sums over a whole batch or text, or a mean of float32 weights taken in float64"),
    "float64 model gradient": Fixed(1e-8, "gradients of a whole model"),
    "float32 same steps": Fixed(1e-6, "the same steps in products of other shapes, on numbers of about 1"),
    "float32 fused operator": Fixed(
        2e-6, "onnxruntime's fused operators and torch's functions: their own exp and tanh"
    ),
    "float32": Fixed(1e-5, "another library, on numbers of about 1 over a dozen steps"),
    "float32 two hosts": Fixed(2e-5, "files of others in two runtimes, on numbers of some units"),
    "float32 long": Fixed(1e-4, "sums over whole texts, and models that amplify rounding; what verification allows"),
    "float32 score": Fixed(1e-3, "log-probabilities of whole texts, sums of a hundred terms of some units"),
    "float32 training": Fixed(1e-3, "weights after some steps of training, which amplify rounding"),
    "float32 training gradient": Fixed(1e-4, "losses and weights after a few steps of training"),
    "end of a schedule": Fixed(1e-4, "one step before the end, the learning rate is not quite its floor"),
    "printed with 4 digits": Fixed(2e-4, "two numbers rounded to four digits behind the point"),
    "printed with 3 digits": Fixed(2e-3, "two numbers rounded to three digits behind the point"),
    "compiled training": Fixed(0.01, "perplexity after an epoch with compiled steps, which round otherwise"),
    "int8 product": Fixed(1e-3, "sums of a thousand integers times a scale, in float32"),
    "int8 perplexity": Fixed(0.02, "what 8 bits cost a small language model"),
    "int8 answer": Fixed(0.05, "root mean square of what 8 bits change, on small models"),
    "float16": Fixed(0.02, "11 bits, over some steps: the product's own tolerance"),
    "bfloat16": Fixed(0.05, "8 bits, over some steps"),
}
"""Where :func:`bound` has no sizes to go by.  A number is never widened for a test: a test that needs more has a fault, or a
row of its own with a reason.
"""


def fixed(kind: str) -> float:
    """The number of a row of :data:`FIXED`."""
    return FIXED[kind].bound


EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}

worst: dict[tuple[str, str], float] = defaultdict(float)
"""Worst units met by each row in this process."""


def unit(dtype: str, *, depth: int = 1, length: int = 1, magnitude: float = 1.0, largest_input: float = 1.0) -> float:
    """Absolute size of one unit of error."""
    size, slope = max(magnitude, largest_input, 1.0), max(largest_input / 8, 1.0)
    return EPSILON[dtype] * max(depth, 1) * (1 + length) * size * slope


def bound(
    dtype: str, kind: str, *, depth: int = 1, length: int = 1, magnitude: float = 1.0, largest_input: float = 1.0
) -> float:
    """Largest absolute error allowed.

    Args:
        dtype: the coarser of the two sides: "float64", "float32", ...
        kind: which comparison, the other half of a key of :data:`TABLE`.
        depth: number of layers.
        length: number of time steps.
        magnitude: largest absolute number among the results.
        largest_input: largest absolute number among the inputs.
    """
    sizes = {"depth": depth, "length": length, "magnitude": magnitude, "largest_input": largest_input}
    return TABLE[dtype, kind].units * unit(dtype, **sizes)  # type: ignore[arg-type]


def largest_number(a: np.ndarray) -> float:
    """Largest finite absolute number in ``a``, 0 if there is none."""
    return float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a)))


def differences(
    actual: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
    dtype: str,
    kind: str,
    *,
    depth: int = 1,
    length: int = 1,
    largest_input: float = 1.0,
) -> list[str]:
    """One line for every named array that is missing, has another shape or differs by more than the table allows.

    The magnitude is that of ``expected``; NaN anywhere is a difference.  See :func:`bound` for the arguments.
    """
    magnitude = max((largest_number(a) for a in expected.values()), default=0.0)
    sizes = {"depth": depth, "length": length, "magnitude": magnitude, "largest_input": largest_input}
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
