"""Interleaved timing: contestants take turns of equal length, warm and cold; medians are quoted, ratios are what counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Contestant = Callable[[], object]
COLD_CALLS = 3  # a turn
_SWEPT = np.zeros(64 << 20, np.uint8)  # more than any cache of the processors that the tables are from


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


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    warm: median where nothing else runs between the calls.  cold: median where the caches were swept before the call, as
    by the other work of a service; None if that was not measured.  spread: the range of the middle half of the warm turns,
    as a part of their median.
    """

    warm: float
    cold: float | None
    spread: float


def timings(
    contestants: Mapping[str, Contestant], *, seconds: float = 2.0, least: int = 7, cold: bool = True
) -> dict[str, Timing]:
    """What one call of each contestant takes, warm and cold.

    They take turns in an order that alternates, so that a drift of the machine hits all alike.  A turn is one call that is
    not counted, which brings the contestant's memory back into the caches, and then the same number of calls for every
    contestant: with fewer for a slow one, it alone would be measured cold.

    Args:
        contestants: by name.
        seconds: about how long each of them runs, warm and cold together.
        least: turns at least.
        cold: measure cold calls too, for calls short enough that the caches matter.
    """
    repeats = _repeats(contestants)
    warm: dict[str, list[float]] = {name: [] for name in contestants}
    chilled: dict[str, list[float]] = {name: [] for name in contestants}
    names, deadline = list(contestants), time.perf_counter() + seconds * len(contestants)
    turn = 0
    while turn < least or time.perf_counter() < deadline:
        for name in names if turn % 2 == 0 else reversed(names):
            run = contestants[name]
            run()
            warm[name].append(_timed(run, repeats))
            if cold:
                for _ in range(COLD_CALLS):
                    _sweep_caches()
                    chilled[name].append(_timed(run, 1))
        turn += 1
    return {
        name: Timing(
            statistics.median(warm[name]), statistics.median(chilled[name]) if cold else None, _spread(warm[name])
        )
        for name in names
    }


def _repeats(contestants: Mapping[str, Contestant]) -> int:
    """How often each is called in a turn: 2 ms of the quickest, unless the slowest then takes more than 100 ms."""
    took = []
    for run in contestants.values():
        run()  # first calls allocate and choose kernels
        run()
        took.append(max(min(_timed(run, 1) for _ in range(3)), 1e-7))
    return max(1, min(int(2e-3 / min(took)), int(0.1 / max(took))))


def _timed(run: Contestant, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _sweep_caches() -> None:
    """Fill every cache with something else, as the other work of a service does between two calls."""
    np.add(_SWEPT, 1, out=_SWEPT)


def _spread(samples: list[float]) -> float:
    low, middle, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else [samples[0]] * 3
    return (high - low) / middle


def micro(seconds: float, steps: int = 1) -> str:
    """Microseconds a step."""
    return f"{seconds / steps * 1e6:.1f}"


def percent(part: float) -> str:
    """A part of one, such as the spread of a timing."""
    return f"{part:.0%}"


def ratio(a: float, b: float) -> str:
    """``a`` as a multiple of ``b``."""
    return f"{a / b:.2f}"
