"""Where the states of streams live: side by side in a few large arrays, so that a batch of them is one copy a state.

A stream has two rows, one after the other: its state, and the one that the next push writes.  Rows never move, because
onnxruntime is bound to them.  To stack the states of 64 streams one by one costs as much as three steps of one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.session.process_fork import watch
from rnncore.runtime.tensors.specs import Layout

_FIRST_PLACES = 256  # memory that no stream has touched costs nothing
_MOST_PLACES = 1 << 14

StateSet = tuple[Array, ...]
"""Every state, [1, size] each, in the order of the signature."""


class StateBlock:
    """A block of places for streams.

    arrays: [2 * places, size] for each state; the rows of a place are an even one and the odd one after it.
    free: places that nobody has, as the first of their two rows; ``append`` and ``pop`` are atomic, so that a stream may
        give its place back from wherever the garbage collector runs.
    """

    __slots__ = ("arrays", "free", "places")

    def __init__(self, layout: Layout, places: int) -> None:
        self.places = places
        self.arrays = tuple(np.zeros((2 * places, state.size), state.dtype) for state in layout.states)
        self.free = list(range(2 * places - 2, -1, -2))

    def sets(self, place: int) -> tuple[StateSet, StateSet]:
        """The two rows of a place, as views."""
        first, second = (tuple(array[row : row + 1] for array in self.arrays) for row in (place, place + 1))
        return first, second


class StateRows:
    """Places for all streams of a model; more are made when they run out, and blocks that are empty are given up."""

    __slots__ = ("__weakref__", "_blocks", "_layout", "_lock")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._blocks: list[StateBlock] = []
        watch(self)

    def take(self) -> tuple[StateBlock, int]:
        """A place that is free; its rows hold anything."""
        for block in reversed(self._blocks):
            try:
                return block, block.free.pop()
            except IndexError:
                continue
        with self._lock:
            used = [block for block in self._blocks if len(block.free) < block.places]
            places = min(2 * used[-1].places, _MOST_PLACES) if used else _FIRST_PLACES
            block = StateBlock(self._layout, places)
            place = block.free.pop()
            self._blocks = [*used, block]
        return block, place

    def after_process_fork(self) -> None:
        """A lock of this process."""
        self._lock = threading.Lock()


class Places:
    """Places of several streams, each as (block, row); the row is the first or the second one of the place."""

    __slots__ = ("_block", "_places", "_rows")

    def __init__(self, blocks: Sequence[StateBlock], rows: Sequence[int]) -> None:
        first = blocks[0]
        self._block = first if blocks.count(first) == len(blocks) else None  # nearly always: one copy for all
        self._rows = np.array(rows, np.intp)
        self._places = () if self._block is not None else tuple(zip(blocks, rows, strict=True))

    def gather(self) -> list[Array]:
        """Copies of the rows, stacked: [len(places), size] for each state."""
        if self._block is not None:
            return [array.take(self._rows, axis=0) for array in self._block.arrays]
        count = len(self._places[0][0].arrays)
        return [np.concatenate([own.arrays[k][row : row + 1] for own, row in self._places]) for k in range(count)]

    def scatter_other(self, states: Sequence[Array]) -> None:
        """Write [len(places), size] of each state into the other row of each place."""
        if self._block is not None:
            others = self._rows ^ 1
            for array, values in zip(self._block.arrays, states, strict=True):
                array[others] = values
            return
        for i, (own, row) in enumerate(self._places):
            for array, values in zip(own.arrays, states, strict=True):
                array[row ^ 1] = values[i]
