"""Axes that are neither batch nor time: which of them is the time of a loop, and which are held as they are in the example."""

from __future__ import annotations

from collections.abc import Iterator

from rnncore.export.tracing.example import Axes, Example
from rnncore.runtime.format.axes import BATCH, TIME


def with_another_time(call: Example, given: Axes | None) -> Iterator[tuple[Axes, str]]:
    """Axes of the inputs with another one as time, for each that there is, and what that means in words.

    Of two sequences the first is taken for the one along time; a decoder that is taught loops over the second.
    """
    if given or TIME not in call.axis_names:
        return
    first = next(own.name for own in call.inputs if TIME in own.axes)
    for other in [name for name in call.axis_names if name not in (BATCH, TIME)]:
        names = {other: TIME, TIME: first if first != BATCH else f"{first}_steps"}
        axes = {
            i.name: tuple(names.get(axis, axis) if isinstance(axis, str) else None for axis in i.axes)
            for i in call.inputs
        }
        yield (
            axes,
            f"a loop runs along axis '{other}' of the inputs, which is the file's 'time'; the other one is '{names[TIME]}'",
        )


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
