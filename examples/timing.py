"""Time programs side by side, in turns, so that a busy moment of the machine hits all of them: python examples/timing.py"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def side_by_side(contestants: dict[str, Callable[[], object]], units: int, unit: str, rounds: int = 5) -> None:
    """Print the median microseconds for each of the ``units`` that every contestant gets through, and ratios to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) / units * 1e6 for name, times in seconds.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"  {name:<44} {median:9.1f} µs a {unit}, {first / median:5.2f} times as fast as the first")


if __name__ == "__main__":
    side_by_side({"a sum": lambda: sum(range(10_000)), "a longer sum": lambda: sum(range(20_000))}, 1, "sum")
