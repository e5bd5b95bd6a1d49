"""A call that would be too large, in several: its rows are run in parts, so that memory stays within a bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.tensors.specs import Layout


def row_parts(batch: int, steps: int, most_steps: int | None) -> list[slice]:
    """Rows of each call, so that rows times ``steps`` is at most ``most_steps``; one row at least, all of them for None."""
    rows = batch if most_steps is None else max(1, most_steps // max(steps, 1))
    return [slice(first, min(first + rows, batch)) for first in range(0, batch, rows)]


def cut(layout: Layout, arrays: dict[str, Array], rows: slice) -> dict[str, Array]:
    """The inputs of some rows."""
    return {
        slot.name: np.ascontiguousarray(arrays[slot.name][(slice(None),) * slot.batch_axis + (rows,)])
        for slot in layout.inputs
    }


def joined(layout: Layout, parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Outputs and final states of all rows."""
    return {name: np.concatenate([part[name] for part in parts], axis) for name, axis in _batch_axes(layout)}


def _batch_axes(layout: Layout) -> Iterator[tuple[str, int]]:
    for slot in layout.outputs:
        yield slot.name, slot.batch_axis
    for state in layout.states:
        yield state.output, 0
