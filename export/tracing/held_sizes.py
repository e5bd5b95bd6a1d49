"""Axes that are neither batch nor time, held at the sizes of the example where they stand in the way."""

from __future__ import annotations

from rnncore.export.tracing.example import Axes, Example
from rnncore.runtime.format.axes import BATCH, TIME


def with_sizes_held(call: Example, given: Axes | None) -> tuple[Axes, str] | None:
    """Axes of the inputs without those that are neither batch nor time, and which these are; None if there are none.

    given: what the caller says, which stays.
    """
    given = given or {}
    held = [
        f"{own.name} axis {i} to {own.value.shape[i]}"
        for own in call.inputs
        if own.name not in given
        for i, axis in enumerate(own.axes)
        if axis not in (None, BATCH, TIME)
    ]
    if not held:
        return None
    axes = {i.name: tuple(axis if axis in (BATCH, TIME) else None for axis in i.axes) for i in call.inputs} | dict(
        given
    )
    return axes, f"{', '.join(held)}, as in the example"
