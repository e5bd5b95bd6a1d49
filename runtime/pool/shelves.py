"""Where the states of streams live: side by side in a few large arrays, so that a batch of them is one copy a state.

A stream has two rows, one after the other: its state, and the one that the next push writes.  Rows never move, because
onnxruntime is bound to them.  To stack the states of 64 streams one by one costs as much as three steps of one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.calls.forks import watch
from rnncore.runtime.files.layout import Array, Layout

_FIRST_PLACES = 256  # memory that no stream has touched costs nothing
_MOST_PLACES = 1 << 14

StateSet = tuple[Array, ...]
"""Every state, [1, size] each, in the order of the signature."""


class Shelf:
    """A block of places for streams.

    arrays: [2 * places, size] for each state.
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


class Shelves:
    """Places for all streams of a model; more are made when they run out, and blocks that are empty are given up."""

    __slots__ = ("__weakref__", "_layout", "_lock", "_shelves")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._shelves: list[Shelf] = []
        watch(self)

    def take(self) -> tuple[Shelf, int]:
        """A place that is free; its rows hold anything."""
        for shelf in reversed(self._shelves):
            try:
                return shelf, shelf.free.pop()
            except IndexError:
                continue
        with self._lock:
            used = [shelf for shelf in self._shelves if len(shelf.free) < shelf.places]
            places = min(2 * used[-1].places, _MOST_PLACES) if used else _FIRST_PLACES
            shelf = Shelf(self._layout, places)
            place = shelf.free.pop()
            self._shelves = [*used, shelf]
        return shelf, place

    def after_fork(self) -> None:
        """A lock of this process."""
        self._lock = threading.Lock()


def gather(places: Sequence[tuple[Shelf, int]]) -> list[Array]:
    """Copies of the rows of ``places``, stacked: [len(places), size] for each state."""
    shelf = places[0][0]
    if all([own is shelf for own, _ in places]):  # a list is faster than a generator
        rows = _rows(places)
        return [array.take(rows, axis=0) for array in shelf.arrays]
    return [np.concatenate([own.arrays[k][row : row + 1] for own, row in places]) for k in range(len(shelf.arrays))]


def scatter(places: Sequence[tuple[Shelf, int]], states: Sequence[Array]) -> None:
    """Inverse of :func:`gather`."""
    shelf = places[0][0]
    if all([own is shelf for own, _ in places]):  # a list is faster than a generator
        rows = _rows(places)
        for array, values in zip(shelf.arrays, states, strict=True):
            array[rows] = values
        return
    for i, (own, row) in enumerate(places):
        for array, values in zip(own.arrays, states, strict=True):
            array[row] = values[i]


def _rows(places: Sequence[tuple[Shelf, int]]) -> NDArray[Any]:
    return np.array([row for _, row in places], np.intp)
