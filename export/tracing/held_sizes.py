"""Axes that are neither batch nor time: which of them is the time of a loop, and which are held as they are in the example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rnncore.export.tracing.example import Axes, Example
from rnncore.runtime.format.axes import BATCH, TIME, Size, Steps


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


def with_ones_held(
    axes: Mapping[str, Sequence[Size]], sizes: Mapping[str, Sequence[int]], given: Axes
) -> tuple[Axes, str] | None:
    """``axes`` of the inputs without those of one entry that are neither batch nor time, and which; None if there are none.

    sizes: of the example.  given: axes of inputs that the caller says, which stay.
    """
    held = [
        f"{name} axis {i} is held to 1"
        for name, own in axes.items()
        if name not in given
        for i, axis in enumerate(own)
        if sizes[name][i] == 1 and isinstance(axis, str) and axis not in (BATCH, TIME)
    ]
    if not held or any(isinstance(axis, Steps) for own in axes.values() for axis in own):
        return None
    kept: dict[str, tuple[str | None, ...]] = {
        name: tuple(
            str(axis) if isinstance(axis, str) and (sizes[name][i] != 1 or axis in (BATCH, TIME)) else None
            for i, axis in enumerate(own)
        )
        for name, own in axes.items()
    }
    return {**kept, **given}, ", ".join(held)
