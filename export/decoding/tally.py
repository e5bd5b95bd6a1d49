"""What has been compared so far of a file that writes, and how it came out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """tokens: how many were compared.  close: decisions that rounding may turn.  max_abs: largest error of a log-probability."""

    tokens: int = 0
    close: int = 0
    max_abs: float = 0.0

    def plus(self, other: Tally) -> Tally:
        """Of both."""
        return Tally(self.tokens + other.tokens, self.close + other.close, max(self.max_abs, other.max_abs))
