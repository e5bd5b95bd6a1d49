"""Interleaved timing: contestants take turns, medians are quoted, ratios are what counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Contestant = Callable[[], object]


@dataclass(frozen=True)
class Table:
    """A titled table of rows of text, printed as Markdown."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        lines = [
            f"## {self.title}",
            "",
            self.note,
            "",
            "| " + " | ".join(self.header) + " |",
            "|" + "---|" * len(self.header),
        ]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows)]) + "\n"


def medians(contestants: Mapping[str, Contestant], *, seconds: float = 2.0, least: int = 7) -> dict[str, float]:
    """Median seconds of one call of each contestant.

    They take turns in an order that alternates, so that a drift of the machine hits all alike.  Calls far shorter than the
    clock is good for are repeated within a turn.
    """
    repeats = {}
    for name, run in contestants.items():
        run()  # warm-up: first calls allocate and choose kernels
        start = time.perf_counter()
        run()
        repeats[name] = max(1, int(2e-3 / max(time.perf_counter() - start, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    names, deadline = list(contestants), time.perf_counter() + seconds * len(contestants)
    turn = 0
    while turn < least or time.perf_counter() < deadline:
        for name in names if turn % 2 == 0 else reversed(names):
            run, count = contestants[name], repeats[name]
            start = time.perf_counter()
            for _ in range(count):
                run()
            samples[name].append((time.perf_counter() - start) / count)
        turn += 1
    return {name: statistics.median(values) for name, values in samples.items()}


def micro(seconds: float, steps: int = 1) -> str:
    """Microseconds a step."""
    return f"{seconds / steps * 1e6:.1f}"


def ratio(a: float, b: float) -> str:
    """``a`` as a multiple of ``b``."""
    return f"{a / b:.2f}"
