"""Numbers that code computes of the sizes with more than sums and products: ``1 / steps``, ``math.sqrt(n)``, ``math.log(n)``.

In one call of a module such a number is a number like others.  Over several sizes it is found by what takes it back to one that
follows the sizes plainly, as the square does with a root.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rnncore.export.tracing.rolling.fitting import Formula, fit

_NEAR = 1e-9  # numbers that differ by less, as a part of the larger one, are one number that was rounded


@dataclass(frozen=True)
class Curve:
    """A number computed of ``inner``, which follows the sizes plainly, by ``steps``.

    steps: names of aten operators of one number, each with the number that it is multiplied with or that is added, or None.
    """

    inner: Formula
    steps: tuple[tuple[str, float | None], ...]

    def __call__(self, sizes: Mapping[str, int]) -> float:
        """The number at ``sizes``, in Python's floats."""
        value = float(self.inner(sizes))
        for name, number in self.steps:
            value = _FORWARD[name](value) if number is None else value * number if name == "mul" else value + number
        return value


_FORWARD: dict[str, Callable[[float], float]] = {
    "reciprocal": lambda x: 1 / x,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "log": math.log,
    "exp": math.exp,
}
_BACK: dict[str, Callable[[float], float]] = {
    "reciprocal": lambda v: 1 / v,
    "sqrt": lambda v: v * v,
    "rsqrt": lambda v: 1 / (v * v),
    "log": math.exp,
    "exp": math.log,
}
_LARGEST = 2.0**53  # floats beyond do not hold every whole number
_FEWEST = 4
"""Different numbers that a curve must go through: any two numbers lie on one of each kind."""


def fit_curve(values: Sequence[float], points: Sequence[Mapping[str, int]]) -> Curve | None:
    """The curve that gives ``values`` at ``points``, None if none of those that are known does."""
    if len(set(values)) < _FEWEST or not all(math.isfinite(value) for value in values):
        return None
    plain = [_plainly(name, [(name, None)], values, points) for name in _BACK]
    scaled = [_scaled(name, [], values, points) for name in ("log", "sqrt", "reciprocal", "rsqrt")]
    scaled.append(_scaled("log", [("exp", None)], values, points))  # powers
    for found in (*plain, *scaled):
        if found is not None and all(
            _close(found(p), v) and (v < 0) == (found(p) < 0) for p, v in zip(points, values, strict=True)
        ):
            return found
    return None


def _plainly(
    name: str, steps: list[tuple[str, float | None]], values: Sequence[float], points: Sequence[Mapping[str, int]]
) -> Curve | None:
    try:
        before = [_rounded(_BACK[name](value)) for value in values]
    except (ValueError, OverflowError, ZeroDivisionError):  # the logarithm of a negative number, say
        return None
    if not all(abs(value) < _LARGEST for value in before):
        return None
    whole = all(value == int(value) for value in before)
    inner = fit([int(value) for value in before] if whole else before, points)
    return None if inner is None or inner.constant else Curve(inner, tuple(steps))


def _scaled(
    name: str, steps: list[tuple[str, float | None]], values: Sequence[float], points: Sequence[Mapping[str, int]]
) -> Curve | None:
    """``a * log(n) + c``, n the size of one axis, or another function than ``log``, and what ``steps`` make of it."""
    try:
        before = [math.log(value) for value in values] if steps else list(values)
    except ValueError:
        return None
    for axis in sorted({name for point in points for name in point}):
        known = [_FORWARD[name](max(point[axis], 1)) for point in points]
        low, high = known.index(min(known)), known.index(max(known))
        if known[low] == known[high]:
            continue
        factor = _rounded((before[high] - before[low]) / (known[high] - known[low]))
        shift = _rounded(before[low] - factor * known[low])
        if all(abs(factor * x + shift - b) <= _NEAR * max(1.0, abs(b)) for x, b in zip(known, before, strict=True)):
            return Curve(Formula(((1, (axis,)),)), ((name, None), ("mul", factor), ("add", shift), *steps))
    return None


def _rounded(value: float) -> float:
    return float(round(value)) if _close(value, round(value)) else value


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _NEAR * max(abs(one), abs(other))
