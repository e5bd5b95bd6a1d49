"""Where the states of streams live: side by side in a few large arrays, so that a batch of them is one copy a state.

To stack the states of 64 streams one by one costs as much as three steps of one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.interrupts import set_together
from rnncore.runtime.session.process_fork import watch
from rnncore.runtime.tensors.specs import Layout

_FIRST_STREAMS = 256  # memory that no stream has touched costs nothing
_MOST_STREAMS = 1 << 14

StateSet = tuple[Array, ...]
"""Every state, [1, size] each, in the order of the signature."""


class StateRows:
    """Rows of states, an array [rows, size] for each state.  Not thread-safe, but for ``free``.

    A stream has ``width`` rows, one after the other, and is known by the first: one row in a pool; two where onnxruntime
    reads the state from one and writes it to the other.

    free: first rows that no stream has; ``append`` and ``pop`` are atomic, so that a stream may give its rows back from
        wherever the garbage collector runs.
    """

    __slots__ = ("_arrays", "_initial", "_rows", "_width", "free")

    def __init__(self, layout: Layout, streams: int, *, width: int = 1) -> None:
        self._initial = tuple(state.initial for state in layout.states)
        self._width = width
        self._rows = width * streams
        self._arrays = [np.zeros((self._rows, state.size), state.dtype) for state in layout.states]
        self.free = list(range(self._rows - width, -1, -width))

    def __len__(self) -> int:
        """Streams that have rows."""
        return self._rows // self._width - len(self.free)

    def allocate(self, states: Sequence[Array] | None = None) -> int:
        """The row of one more stream, which holds ``states``, or the initial ones.

        Where no row is free, all move to larger arrays: not for rows of which somebody has views.
        """
        if not self.free:
            self._grow()
        row = self.free.pop()
        self.write(row, states)
        return row

    def release(self, row: int) -> None:
        """Give the rows of a stream back."""
        self.free.append(row)

    def write(self, row: int, states: Sequence[Array] | None = None) -> None:
        """Replace the states of a row, by the initial ones if none are given."""
        for array, value in zip(self._arrays, self._initial if states is None else states, strict=True):
            array[row] = value

    def read(self, row: int) -> tuple[Array, ...]:
        """Copies of the states of a row, [size] each."""
        return tuple(array[row].copy() for array in self._arrays)

    def views(self, row: int) -> StateSet:
        """The states of a row as they lie here."""
        return tuple(array[row : row + 1] for array in self._arrays)

    def gather(self, rows: NDArray[np.intp]) -> list[Array]:
        """Copies of the states of ``rows``, [len(rows), size] each."""
        return [array.take(rows, axis=0) for array in self._arrays]

    def scatter(self, rows: NDArray[np.intp], states: Sequence[Array]) -> None:
        """Replace the states of ``rows`` by [len(rows), size] each."""
        for array, value in zip(self._arrays, states, strict=True):
            array[rows] = value

    def keep(self, rows: Collection[int]) -> None:
        """The rows of all streams but these are free."""
        self.free = sorted(set(range(0, self._rows, self._width)).difference(rows), reverse=True)

    def _grow(self) -> None:
        before = self._rows
        arrays = [np.concatenate([array, np.zeros_like(array)]) for array in self._arrays]
        set_together((self, self), ("_arrays", "_rows"), (arrays, 2 * before))
        self.free.extend(range(2 * before - self._width, before - 1, -self._width))


class StateBlocks:
    """Rows for all streams of a model, two for each: the state, and the one that the next push writes.

    Rows never move, because onnxruntime is bound to them: when they run out another block is made, and blocks that are
    empty are given up.
    """

    __slots__ = ("__weakref__", "_blocks", "_layout", "_lock")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._blocks: list[tuple[StateRows, int]] = []  # and for how many streams
        watch(self)

    def take(self) -> tuple[StateRows, int]:
        """Rows for one more stream, which hold anything: the block, and the first of the two."""
        for block, _ in reversed(self._blocks):
            try:
                return block, block.free.pop()
            except IndexError:
                continue
        with self._lock:
            used = [(block, streams) for block, streams in self._blocks if len(block)]
            streams = min(2 * used[-1][1], _MOST_STREAMS) if used else _FIRST_STREAMS
            block = StateRows(self._layout, streams, width=2)
            row = block.free.pop()
            self._blocks = [*used, (block, streams)]
        return block, row

    def after_process_fork(self) -> None:
        """A lock of this process."""
        self._lock = threading.Lock()


class SelectedRows:
    """One row of each of several streams, as (block, row), either the first or the second of its two."""

    __slots__ = ("_block", "_places", "_rows")

    def __init__(self, blocks: Sequence[StateRows], rows: Sequence[int]) -> None:
        first = blocks[0]
        self._block = first if all(block is first for block in blocks) else None  # nearly always: one copy for all
        self._rows = np.array(rows, np.intp)
        self._places = () if self._block is not None else tuple(zip(blocks, self._rows[:, None], strict=True))

    def gather(self) -> list[Array]:
        """Copies of the rows, stacked: [number of streams, size] for each state."""
        if self._block is not None:
            return self._block.gather(self._rows)
        columns = zip(*(block.gather(row) for block, row in self._places), strict=True)
        return [np.concatenate(column) for column in columns]

    def scatter_other(self, states: Sequence[Array]) -> None:
        """Write [number of streams, size] of each state into the other row of each stream."""
        if self._block is not None:
            self._block.scatter(self._rows ^ 1, states)
            return
        for i, (block, row) in enumerate(self._places):
            block.scatter(row ^ 1, [value[i : i + 1] for value in states])
