"""How far an answer of a file may be from the right one, and which one that is: in floating point, and in int8.

Whatever is compared, and however a file is asked, is the same for both; see :mod:`rnncore.export.verification.verifier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rnncore.export.verification.reference import TOLERANCE, Array, error
from rnncore.runtime.format.comparison import rms_error

Pairs = Sequence[tuple[Array, Array]]
"""(what the file answered, what is right) for each output."""

INT8_RMS = 0.1
"""Largest root mean square of the error, as a part of that of PyTorch's answers.

A weight of 7 bits is off by max / 64 / sqrt(12), an activation of 8 bits by max / 127 / sqrt(12); where the largest number is
3 times the typical one, a product is off by 1.5 % of its size, whatever its width.  Layers and time steps add up to a few
times that (0.4 to 2.2 % was seen for layers and stacks of all cells); scales of the wrong columns, wrapped sums or a lost
scale are off by 20 % and more.
"""
INT8_SELF = 2e-3
"""Largest error of chunks against the whole and of a padded row against the row alone, as a part of the largest output.

Integer sums are the same in any order, so most such answers agree to the last bit.  What is left in float32 may differ in its
last bits and tip the rounding of an activation: 1 / 127 of one number, times a weight.
"""


@dataclass(frozen=True)
class Judge:
    """PyTorch says what is right, for every question; the largest error counts, as a part of the largest output.

    measure: the same for the golden cases of the file, see :class:`rnncore.runtime.format.golden.Golden`.  lenient: what
    PyTorch's own rounding explains is no error.
    """

    tolerance: float
    measure: ClassVar[str] = "max"
    lenient: ClassVar[bool] = True

    @classmethod
    def of(cls, precision: str) -> Judge:
        """For weights of a dtype."""
        return cls(TOLERANCE.get(precision, TOLERANCE["float32"]))

    def asks_file(self, kind: str, *, padded: bool) -> bool:
        """Whether it is the file itself, run on a question alone and in one piece, that says what is right."""
        return False

    def objection(self, pairs: Pairs, *, to_file: bool) -> str | None:
        """What is wrong, None if nothing is.  to_file: the file itself was asked."""
        if max(error(got, right)[1] for got, right in pairs) <= self.tolerance:
            return None
        shapes = [(got.shape, right.shape) for got, right in pairs if got.shape != right.shape]
        return f"shape {shapes[0][0]} instead of {shapes[0][1]}" if shapes else ""


@dataclass(frozen=True)
class Int8Judge(Judge):
    """Loose against PyTorch, tight against the file itself.

    The graph that int8 is made from has passed in float32, so gates, lengths and states are right.  What is left to check is
    what rounding does: how far the answers are from PyTorch's (:data:`INT8_RMS`), and that an answer still depends on nothing
    but its own row and its own past (:data:`INT8_SELF`).
    """

    tolerance: float = INT8_RMS
    measure: ClassVar[str] = "rms"
    lenient: ClassVar[bool] = False

    def asks_file(self, kind: str, *, padded: bool) -> bool:
        """See :meth:`Judge.asks_file`: PyTorch is asked for whole batches."""
        return kind != "whole" and not padded

    def objection(self, pairs: Pairs, *, to_file: bool) -> str | None:
        """See :meth:`Judge.objection`."""
        if to_file:
            passed = max(error(got, right)[1] for got, right in pairs) <= INT8_SELF
            return None if passed else "against the int8 file run on it alone and in one piece"
        far = max(rms_error([pair]) for pair in pairs)
        return None if far <= self.tolerance else f"int8, rms error {far:.1%} of the values"
