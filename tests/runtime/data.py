"""Inputs for the hand-built models, and the bound that float32 answers keep to float64 ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from rnncore import runtime
from tests.runtime.files import FEATURES, IDS, SPEAKER, Spec, causal_file
from tests.tolerances import fixed

# Values are of size 1 to 10 and sequences short: a hundred roundings of float32.
BOUND = {"rtol": fixed("float32 two hosts"), "atol": fixed("float32 two hosts")}


@cache
def model(spec: Spec) -> runtime.Model:
    return runtime.load(causal_file(spec))


def sequence(spec: Spec, rng: np.random.Generator, steps: int) -> np.ndarray:
    """One sequence of the main input, time first."""
    if spec.ids:
        return rng.integers(0, IDS, steps)
    return rng.standard_normal((steps, FEATURES)).astype(np.float32)


def voice(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(SPEAKER).astype(np.float32)


def arguments(spec: Spec, item: np.ndarray, speaker: np.ndarray) -> tuple[np.ndarray, ...]:
    """What push takes."""
    return (item, speaker) if spec.speaker else (item,)


def named(spec: Spec, output: Any) -> dict[str, Any]:
    """The answer of run or push as a dict in all cases."""
    return output if spec.last else {"y": output}
