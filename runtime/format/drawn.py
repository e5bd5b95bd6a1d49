"""Inputs of golden cases that are drawn again from a seed, instead of stored: the same numbers on every machine.

Every number comes from one raw 64-bit word of PCG64 (O'Neill 2014; XSL-RR 128/64, seeded with NumPy's ``SeedSequence``), whose
stream NumPy promises not to change, unlike that of its distributions:

* floats: low + (high - low) * (word >> 11) / 2**53, computed in float64 and rounded once to the dtype;
* integers: low + (word >> 11) mod (high - low + 1);
* booleans: the highest bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array

MOST_BYTES = 1 << 24  # of one array; what a file may ask us to make


@dataclass(frozen=True)
class Drawn:
    """Random numbers from ``low`` to ``high``, both included for integers."""

    seed: int
    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float

    def array(self) -> Array:
        """The numbers."""
        words = np.random.PCG64(self.seed).random_raw(math.prod(self.shape))
        words = np.asarray(words, np.uint64).reshape(self.shape)
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return (words >> np.uint64(63)).astype(bool)
        words = words >> np.uint64(11)
        if dtype.kind == "f":
            return (self.low + (self.high - self.low) * (words / 2.0**53)).astype(dtype)
        count = int(self.high) - int(self.low) + 1
        return (int(self.low) + (words % np.uint64(count)).astype(np.int64)).astype(dtype)

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"seed": self.seed, "dtype": self.dtype, "shape": list(self.shape), "low": self.low, "high": self.high}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Drawn:
        """Read :meth:`to_data`; raises ValueError, KeyError or TypeError for what it is not."""
        shape, dtype = tuple(int(n) for n in data["shape"]), np.dtype(str(data["dtype"]))
        drawn = cls(int(data["seed"]), dtype.name, shape, float(data["low"]), float(data["high"]))
        size_bytes = math.prod(shape) * 8
        if dtype.kind not in "fiub" or min(shape, default=0) < 0 or size_bytes > MOST_BYTES or drawn.seed < 0:
            raise ValueError(f"numbers of {dtype} and shape {list(shape)} drawn from seed {drawn.seed}")
        if not -(2.0**53) <= drawn.low <= drawn.high <= 2.0**53 and dtype.kind != "f":
            raise ValueError(f"whole numbers from {drawn.low} to {drawn.high}")
        return drawn
