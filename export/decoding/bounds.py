"""How far what a file writes may be from what its model gives."""

from __future__ import annotations

from dataclasses import dataclass

from rnncore.export.verification.judging import INT8_SELF
from rnncore.export.verification.reference import TOLERANCE


@dataclass(frozen=True)
class Bounds:
    """What is no error yet, by the precision of a file.

    log_prob: largest error of a log-probability, as a part of the largest one (at least 1).  decision: by how much a token must
    be ahead of another one, in probability (of translations: in log-probability), for the other one to be wrong.  clear: the
    same for golden cases, which other processors have to write as well.
    """

    log_prob: float
    decision: float
    clear: float

    @classmethod
    def of(cls, precision: str) -> Bounds:
        """In floating point, rounding; in int8 also that it may tip how an activation is rounded, 1 / 127 of a number."""
        if precision == "int8":
            return cls(INT8_SELF, 10 * INT8_SELF, 10 * INT8_SELF)
        tolerance = TOLERANCE.get(precision, TOLERANCE["float32"])
        return cls(tolerance, tolerance, 1e-4)
