"""Signals whose handler raises, at random moments of pushes; afterwards every stream must be where it says it is."""

from __future__ import annotations

import random

import numpy as np

from rnncore import runtime
from tests.runtime.data import BOUND, model, sequence
from tests.runtime.files import Spec, reference
from tests.runtime.interrupting import interrupted_after

SPEC = Spec(lengths=True, learned=True)
ROUNDS = 300


def run(amount: int) -> dict[str, int]:
    whole = sequence(SPEC, np.random.default_rng(5), 2000)
    wanted = reference(SPEC, whole)["y"]
    chance, struck = random.Random(7), 0
    with model(SPEC).pool(max_wait_ms=0) as pool:
        for stream in (model(SPEC).stream(), pool.open()):
            for _ in range(ROUNDS * amount):
                struck += interrupted_after(chance.random() * 5e-4, lambda s=stream: push_on(s, whole))
                _ = stream.state  # neither busy, nor for ever in the queue
                at = stream.steps
                np.testing.assert_allclose(stream.push(whole[at : at + 1]), wanted[at : at + 1], **BOUND)
        assert pool.stats()["pending"] == 0
    return {"rounds": 2 * ROUNDS * amount, "signals that struck": struck, "streams left busy or wrong": 0}


def push_on(stream: runtime.Stream | runtime.PoolStream, whole: np.ndarray) -> None:
    if stream.steps > 1900:
        stream.reset()
    for _ in range(10):
        stream.push(whole[stream.steps : stream.steps + 1])
