"""Benchmarks give every contestant the same number of calls, and count none that warms up."""

from __future__ import annotations

import time
from collections import Counter

from benchmarks.measure import COLD_CALLS, timings


def test_a_slow_contestant_is_called_as_often_as_a_quick_one() -> None:
    calls: Counter[str] = Counter()

    def quick() -> None:
        calls["quick"] += 1

    def slow() -> None:
        calls["slow"] += 1
        time.sleep(1e-3)

    found = timings({"quick": quick, "slow": slow}, seconds=0.0, least=3, cold=False)
    assert calls["quick"] == calls["slow"] > 3
    assert found["quick"].warm < found["slow"].warm
    assert found["quick"].cold is None


def test_cold_calls_follow_a_sweep_of_the_caches() -> None:
    calls: Counter[str] = Counter()
    found = timings({"one": lambda: calls.update(one=1) or time.sleep(3e-3)}, seconds=0.0, least=4)
    # Two first calls and three that find the number of repeats; then in each of four turns a warm-up, one call, the cold.
    assert calls["one"] == 5 + 4 * (2 + COLD_CALLS)
    assert found["one"].cold is not None
