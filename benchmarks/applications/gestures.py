"""A gesture that is decided in the middle of a series, by pooling that keeps the strongest sign of it."""

from __future__ import annotations

from benchmarks.applications.activity import Task, one
from benchmarks.applications.record import Measured

FLOORS: dict[str, float] = {}
TASK = Task("gesture, GunPoint", "max", 32, 60, 6e-3, 0.95)


def measure() -> list[Measured]:
    return [one("GunPoint", TASK)]
