"""The learning rate: up, then down, never zero."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rnncore.training.schedule import FLOOR, learning_rate_factor
from tests.tolerances import fixed


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_it_rises_to_the_peak_and_then_falls(steps: int, warmup: float) -> None:
    factors = [learning_rate_factor(step, steps, warmup) for step in range(steps)]
    assert all(0.0 < factor <= 1.0 for factor in factors)
    rising = round(steps * warmup)
    assert all(a < b for a, b in pairwise(factors[:rising]))
    assert all(a > b for a, b in pairwise(factors[rising:]))
    assert factors[min(rising, steps - 1)] == 1.0


def test_it_ends_near_the_floor() -> None:
    assert abs(learning_rate_factor(999, 1000, 0.05) - FLOOR) < fixed("float32 training gradient")
    assert learning_rate_factor(2000, 1000, 0.05) == FLOOR
