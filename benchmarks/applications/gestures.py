"""A gesture that is decided in the middle of a series, by pooling that keeps the strongest sign of it."""

from __future__ import annotations

from benchmarks.applications.activity import Task, one
from benchmarks.applications.record import Measured

FLOORS = {"gesture, GunPoint": 0.95}
NOTE = (
    "A step is a frame of five samples: with single samples the validation loss was still above 0.5 after 25 epochs. "
    "Validation has ten series only; the test set was asked once."
)
TASK = Task("gesture, GunPoint", "max", 32, 60, 6e-3, 0.95, NOTE, frame=5)


def measure() -> list[Measured]:
    return [one("GunPoint", TASK)]
