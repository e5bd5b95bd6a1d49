"""Which pushes of a batch share the next call, and for how many steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PADDING_BUDGET = 0.25
"""Padded steps of a call as a share of its real ones, at most."""


def plan_slice(remaining: Sequence[int], *, paddable: bool) -> tuple[list[int], int]:
    """Chunks that may be run in parts: (indices, steps) of the next call.

    All of them go ahead by the same number of steps.  It is the least that is left of any; a file that takes lengths
    goes on for as long as the rows that end early cost less than :data:`PADDING_BUDGET`.
    """
    everyone = list(range(len(remaining)))
    least = min(remaining)
    if least == max(remaining):
        return everyone, least
    if paddable:
        return everyone, _within_budget(remaining)
    if least == 0:  # the call that answers them must not move the others
        return [i for i in everyone if remaining[i] == 0], 0
    return everyone, least


def plan_whole(steps: Sequence[int], *, paddable: bool) -> tuple[list[int], int]:
    """Chunks that must not be run in parts: (indices, steps) of the next call, which always serves the first."""
    first = steps[0]
    if not paddable:
        return [i for i, n in enumerate(steps) if n == first], first
    others = sorted((i for i in range(1, len(steps)) if steps[i] <= first), key=lambda i: -steps[i])
    chosen, padded, real = [0], 0, first
    for i in others:
        padded += first - steps[i]
        real += steps[i]
        if padded > PADDING_BUDGET * real:
            break
        chosen.append(i)
    return chosen, first


def _within_budget(remaining: Sequence[int]) -> int:
    """The largest number of steps, among those left of some row, at which little enough is padding."""
    lengths = np.sort(np.asarray(remaining))
    count = len(lengths)
    # Running v steps, row i has min(v, lengths[i]) real ones.
    before = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    real = before + lengths * (count - np.arange(count))
    padded = lengths * count - real
    fits = np.flatnonzero((padded <= PADDING_BUDGET * real) & (lengths > 0))
    return int(lengths[fits[-1]]) if len(fits) else int(lengths[lengths > 0][0])
