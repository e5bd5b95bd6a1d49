"""The states of many streams, stacked: a batch is gathered and scattered with one copy a state.

Keeping them stacked costs about as much for a batch of 64 streams as copying three of them one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.interrupts import set_together
from rnncore.runtime.tensors.specs import Layout

_FIRST_CAPACITY = 64


class Resident:
    """Rows of states.  Not thread-safe: whoever calls holds the pool's lock."""

    def __init__(self, layout: Layout) -> None:
        self._initial = tuple(state.initial for state in layout.states)
        self._arrays = [np.zeros((_FIRST_CAPACITY, state.size), state.dtype) for state in layout.states]
        self._capacity = _FIRST_CAPACITY
        self._free = list(range(_FIRST_CAPACITY - 1, -1, -1))

    def __len__(self) -> int:
        """Rows in use."""
        return self._capacity - len(self._free)

    def allocate(self, states: Sequence[Array] | None = None) -> int:
        """A row that holds ``states``, or the initial ones."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.write(row, states)
        return row

    def release(self, row: int) -> None:
        """Give a row back."""
        self._free.append(row)

    def write(self, row: int, states: Sequence[Array] | None = None) -> None:
        """Replace the states of a row, by the initial ones if none are given."""
        for array, value in zip(self._arrays, self._initial if states is None else states, strict=True):
            array[row] = value

    def read(self, row: int) -> tuple[Array, ...]:
        """Copies of the states of a row, [size] each."""
        return tuple(array[row].copy() for array in self._arrays)

    def gather(self, rows: NDArray[np.intp]) -> list[Array]:
        """Copies of the states of ``rows``, [len(rows), size] each."""
        return [array.take(rows, axis=0) for array in self._arrays]

    def scatter(self, rows: NDArray[np.intp], states: Sequence[Array]) -> None:
        """Replace the states of ``rows`` by [len(rows), size] each."""
        for array, value in zip(self._arrays, states, strict=True):
            array[rows] = value

    def keep(self, rows: Collection[int]) -> None:
        """All rows but these are free."""
        self._free = sorted(set(range(self._capacity)).difference(rows), reverse=True)

    def _grow(self) -> None:
        before = self._capacity
        arrays = [np.concatenate([array, np.zeros_like(array)]) for array in self._arrays]
        set_together((self, self), ("_arrays", "_capacity"), (arrays, 2 * before))
        self._free.extend(range(2 * before - 1, before - 1, -1))
