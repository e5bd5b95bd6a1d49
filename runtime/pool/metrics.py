"""What a pool counts: totals, batch sizes, and how long pushes waited and calls took lately."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np

GAUGES = {
    "streams": "Streams open",
    "resident": "Streams in the batch arrays",
    "pending": "Pushes not yet answered",
    "waiting": "Pushes that wait for a place in the queue",
}
COUNTERS = {
    "pushes": "Pushes accepted",
    "steps": "Time steps run",
    "calls": "Calls of the model",
    "padded_steps": "Time steps run on padding",
    "failed": "Pushes that failed",
    "overloaded": "Pushes and streams refused",
    "expired": "Pushes that passed their deadline",
    "cancelled": "Pushes that were cancelled",
    "evicted": "Times that an idle stream left the batch arrays",
}
TIMES = {"queue_wait": "Seconds that pushes waited for their first call", "call": "Seconds that calls took"}
"""What each number of ``Pool.stats`` is, for those who export them."""

_RECENT = 4096
_QUANTILES = (0.5, 0.9, 0.99)


class PoolCounters:
    """Not thread-safe: whoever calls holds the pool's lock."""

    def __init__(self) -> None:
        names = ("pushes", "steps", "calls", "padded_steps", "failed", "overloaded", "expired", "cancelled", "evicted")
        self.totals = dict.fromkeys(names, 0)
        self.batch_sizes: Counter[int] = Counter()
        self._waits_s: deque[float] = deque(maxlen=_RECENT)
        self._calls_s: deque[float] = deque(maxlen=_RECENT)
        self._wait_total_s = 0.0
        self._call_total_s = 0.0

    def waited(self, seconds: Sequence[float]) -> None:
        """So long pushes waited until they were first run."""
        self._waits_s.extend(seconds)
        self._wait_total_s += sum(seconds)

    def called(self, batch: int, steps: int, real_steps: int, seconds: float) -> None:
        """A call of ``batch`` rows and ``steps`` steps took so long."""
        self.batch_sizes[batch] += 1
        self.totals["calls"] += 1
        self.totals["steps"] += real_steps
        self.totals["padded_steps"] += batch * steps - real_steps
        self._calls_s.append(seconds)
        self._call_total_s += seconds

    def read(self) -> dict[str, Any]:
        """Plain numbers.  Quantiles are over the last 4096 pushes and calls."""
        return {
            **self.totals,
            "batch_sizes": dict(sorted(self.batch_sizes.items())),
            "queue_wait_ms": _quantiles_ms(self._waits_s),
            "call_ms": _quantiles_ms(self._calls_s),
            "queue_wait_total_s": self._wait_total_s,
            "call_total_s": self._call_total_s,
        }


def _quantiles_ms(seconds: deque[float]) -> dict[str, float]:
    names = [f"p{quantile * 100:g}" for quantile in _QUANTILES]
    if not seconds:
        return dict.fromkeys(names, 0.0)
    values = np.quantile(np.fromiter(seconds, np.float64), _QUANTILES) * 1e3
    return dict(zip(names, values.tolist(), strict=True))
