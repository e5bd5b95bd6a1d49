"""Expressions of torch about sizes, computed for numbers.

A guard is asked at thousands of sizes, and the parts of a tower of strided layers stand in it many times over: each is computed
once, in Python's whole numbers where that is what torch means.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import sympy

_RULES: dict[str, Callable[..., Any]] = {
    "Add": lambda *parts: sum(parts),
    "Mul": lambda *parts: math.prod(parts),
    "FloorDiv": operator.floordiv,
    "PythonMod": operator.mod,
    "Max": max,
    "Min": min,
    "Equality": operator.eq,
    "Unequality": operator.ne,
    "StrictGreaterThan": operator.gt,
    "GreaterThan": operator.ge,
    "StrictLessThan": operator.lt,
    "LessThan": operator.le,
    "And": lambda *parts: reduce(operator.and_, parts),
    "Or": lambda *parts: reduce(operator.or_, parts),
    "Not": operator.not_,
}
"""What classes of expressions mean for whole numbers; all others are asked themselves."""

Step = tuple[Callable[..., Any], tuple[int, ...]]


def computed(expression: sympy.Basic) -> Callable[[Mapping[Any, int]], Any]:
    """A function from the value of each symbol to that of ``expression``."""
    places: dict[sympy.Basic, int] = {}
    steps: list[Step | sympy.Basic] = []
    _add(expression, places, steps)

    def compute(values: Mapping[Any, int]) -> Any:
        found: list[Any] = []
        for step in steps:
            if isinstance(step, tuple):
                rule, parts = step
                found.append(_plain(rule(*(found[part] for part in parts))))
            else:
                found.append(values[step] if step in values else _plain(step))
        return found[-1]

    return compute


def _add(part: sympy.Basic, places: dict[sympy.Basic, int], steps: list[Step | sympy.Basic]) -> int:
    """Note how ``part`` is computed, unless that is known, and where its value will stand."""
    if part not in places:
        if part.args:
            own = tuple(_add(argument, places, steps) for argument in part.args)
            steps.append((_RULES.get(type(part).__name__) or _asked(part.func), own))
        else:
            steps.append(part)
        places[part] = len(steps) - 1
    return places[part]


def _asked(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *parts: function(*(sympy.sympify(part) for part in parts))


def _plain(value: Any) -> Any:
    """Whole numbers and truth values of sympy as those of Python."""
    if getattr(value, "is_Integer", False):
        return int(value)
    if getattr(value, "is_Boolean", False) and value in (sympy.true, sympy.false):
        return bool(value)
    return value
