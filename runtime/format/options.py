"""Inputs that a caller may leave out, such as the temperature of a generator: what they are then, and what they may be.

To the graph they are inputs like any other, so that every host of onnxruntime lists them; whoever calls the graph fills in
what its own caller left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 2**31 - 1
"""Default of whole numbers that stands for "no limit": every language has it, JavaScript's numbers too."""


@dataclass(frozen=True)
class Option:
    """One such input: the number that fills it when it is left out, and bounds of what it may hold, None for none.

    minimum, maximum: may be reached.  above: may not.  With a bound, numbers that are not finite are outside too.
    """

    name: str
    default: float
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Option:
        """Read ``dataclasses.asdict`` of an option; raises KeyError, TypeError or ValueError for other data."""
        bounds = {key: _number(data[key]) for key in ("minimum", "maximum", "above") if data.get(key) is not None}
        return cls(str(data["name"]), _number(data["default"]), **bounds)

    @property
    def bounded(self) -> bool:
        """True if some numbers are outside."""
        return (self.minimum, self.maximum, self.above) != (None, None, None)

    def allows(self, values: NDArray[Any]) -> bool:
        """True if every number is within the bounds."""
        if not self.bounded or values.size == 0:
            return True
        low, high = values.min().item(), values.max().item()  # NaN if there is any
        return (
            math.isfinite(low)
            and math.isfinite(high)
            and (self.minimum is None or low >= self.minimum)
            and (self.above is None or low > self.above)
            and (self.maximum is None or high <= self.maximum)
        )

    def problem(self, values: NDArray[Any]) -> str | None:
        """What is wrong with numbers that somebody handed in, for "input 'top_p' ..."; None if nothing is."""
        if self.allows(values):
            return None
        wrong = next(value for value in values.ravel() if not self.allows(np.asarray(value)))
        return f"holds {wrong}, expected {self.text}, or nothing at all for {self.default:g}"

    @property
    def text(self) -> str:
        """The bounds, as the messages say them."""
        parts = [
            f"{word} {bound:g}"
            for word, bound in (("at least", self.minimum), ("above", self.above), ("at most", self.maximum))
            if bound is not None
        ]
        return " and ".join(parts) or "any number"


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {value!r}")
    return value
