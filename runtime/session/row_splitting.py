"""A call in several: its rows are run in parts, so that memory stays within a bound, or on several threads."""

from __future__ import annotations

import threading
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
        if slot.name in arrays
    }


def joined(layout: Layout, parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Outputs and final states of all rows."""
    return {name: np.concatenate([part[name] for part in parts], axis) for name, axis in _batch_axes(layout)}


class JoinedRows:
    """:func:`joined` for parts that come from several threads, each of which copies its own.

    arrays: outputs and final states of all rows.
    """

    def __init__(self, layout: Layout, batch: int) -> None:
        self._layout = layout
        self._batch = batch
        self._lock = threading.Lock()
        self.arrays: dict[str, Array] = {}

    def put(self, rows: slice, part: dict[str, Array]) -> None:
        """Outputs and final states of some rows."""
        for name, axis in _batch_axes(self._layout):
            own = part[name]
            with self._lock:
                if name not in self.arrays:
                    shape = (*own.shape[:axis], self._batch, *own.shape[axis + 1 :])
                    self.arrays[name] = np.empty(shape, own.dtype)
            self.arrays[name][(slice(None),) * axis + (rows,)] = own


def _batch_axes(layout: Layout) -> Iterator[tuple[str, int]]:
    for slot in layout.outputs:
        yield slot.name, slot.batch_axis
    for state in layout.states:
        yield state.output, 0
