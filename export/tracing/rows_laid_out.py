"""Rows and steps that code lays out as one axis, as policies do that learn from whole episodes."""

from __future__ import annotations

from collections.abc import Sequence

from rnncore.export.tracing.example import Axes, Example
from rnncore.export.tracing.groups import Group
from rnncore.export.tracing.probing import Place
from rnncore.runtime.format.axes import BATCH, TIME


def tied_by_size(example: Example, groups: Sequence[Group]) -> Axes | None:
    """Axes of the inputs where those of one size are one axis: rows and steps; None if there are other sizes, or one only.

    Where code lays rows and steps out as one axis and takes them apart by the rows of a state, each input may have others,
    as long as their products fit.
    """
    places = [place for group in groups for place in group.places]
    by_size: dict[int, list[Place]] = {}
    for index, axis in places:
        by_size.setdefault(example.inputs[index].value.shape[axis], []).append((index, axis))
    inputs = {size: {index for index, _ in own} for size, own in by_size.items()}
    if len(by_size) != 2 or min(by_size) < 2 or any(len(own) != len(inputs[size]) for size, own in by_size.items()):
        return None
    time, batch = sorted(by_size, key=lambda size: len(inputs[size]))
    if not inputs[time] < inputs[batch]:  # states have rows, and no steps
        return None
    names = {place: BATCH if size == batch else TIME for size, own in by_size.items() for place in own}
    return {
        own.name: tuple(names.get((i, axis)) for axis in range(own.value.dim())) for i, own in enumerate(example.inputs)
    }
