"""The learning rate as a function of the step."""

from __future__ import annotations

import math

FLOOR = 0.01
"""The last learning rate, as a fraction of the peak."""


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Fraction of the peak learning rate at ``step`` (0 is the first) of ``steps``.

    Rises linearly over the first ``warmup`` (fraction) of the steps, then falls along a half cosine to :data:`FLOOR`.
    """
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, steps - rising)
    return FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
