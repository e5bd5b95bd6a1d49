"""The common chunk or batch: arrays that are exactly right, told in a microsecond.

Services push thousands of small chunks a second.  Nearly all of them need neither conversion nor refusal, and to find
that out by the long way of :mod:`rnncore.runtime.tensors.validation` would cost more than the model.  After a batch of
2.7 ms, which leaves nothing of Python in the caches, that way takes 40 us.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.tensors.specs import Layout
from rnncore.runtime.tensors.validation import within

_ndarray = np.ndarray


class FastReader:
    """Recognises chunks that :func:`rnncore.runtime.tensors.validation.read_item` would hand back unchanged."""

    __slots__ = ("_alone", "_count", "_max_steps", "_rows", "_specs")

    def __init__(self, layout: Layout) -> None:
        bounded = layout.waits or any(axis.bounded for axis in layout.signature.axes)
        simple = not bounded and not layout.options and layout.fixed and layout.timed
        simple = simple and all(slot.item_time_axis in (None, 0) and not slot.tied for slot in layout.inputs)
        self._max_steps = layout.max_steps
        self._count = len(layout.inputs) if simple else -1
        self._specs = tuple(
            (slot.name, slot.dtype, slot.item_time_axis, slot.item_full_shape(0), len(slot.item_shape), slot.bounds)
            for slot in layout.inputs
        )
        # One input that only its shape and dtype can make wrong: the shortest way through.
        slot = layout.inputs[0]
        short = self._count == 1 and slot.bounds is None and self._max_steps is None
        self._alone = (slot.name, slot.dtype, len(slot.item_shape), slot.item_full_shape(0)[1:]) if short else None

        rows_first = (slot.batch_axis, slot.time_axis) == (0, 1)
        self._rows = (slot.name, slot.dtype, len(slot.shape), slot.bounds) if self._count == 1 and rows_first else None

    def read_batch(self, inputs: Sequence[Any]) -> tuple[dict[str, Array], int, int] | None:
        """Arrays by input name, rows and steps (neither of them 0), or None if somebody has to take a closer look."""
        if self._rows is None or len(inputs) != 1:
            return None
        name, dtype, rank, bounds = self._rows
        array = inputs[0]
        if type(array) is not _ndarray or array.dtype is not dtype or array.ndim != rank or not array.size:
            return None
        rows, steps, *rest = array.shape
        if tuple(rest) != self._specs[0][3][1:] or not array.flags.c_contiguous:
            return None
        if (self._max_steps is not None and steps > self._max_steps) or (
            bounds is not None and not within(array, bounds)
        ):
            return None
        return {name: array}, rows, steps

    def read(self, chunks: Sequence[Any]) -> tuple[dict[str, Array], int] | None:
        """Arrays by input name and the number of steps, or None if somebody has to take a closer look."""
        if len(chunks) != self._count:
            return None
        items: dict[str, Array] = {}
        steps = -1
        for chunk, (name, dtype, time_axis, shape, rank, bounds) in zip(chunks, self._specs, strict=True):
            if type(chunk) is not np.ndarray or (chunk.dtype is not dtype and chunk.dtype != dtype):
                return None
            found = chunk.shape
            if time_axis is None:
                if found != shape:
                    return None
            else:
                if len(found) != rank or found[1:] != shape[1:] or steps not in (-1, found[0]):
                    return None
                steps = found[0]
            if bounds is not None and chunk.size and not (chunk.flags.c_contiguous and within(chunk, bounds)):
                return None
            items[name] = chunk
        if self._max_steps is not None and steps > self._max_steps:
            return None
        return items, steps

    def read_copies(self, chunks: Sequence[Any]) -> tuple[dict[str, Array], int] | None:
        """As :meth:`read`, but the arrays are copies."""
        if self._alone is not None and len(chunks) == 1:
            name, dtype, rank, rest = self._alone
            chunk = chunks[0]
            if type(chunk) is not _ndarray or chunk.dtype is not dtype:
                return None
            found = chunk.shape
            if len(found) != rank or found[1:] != rest:
                return None
            return _copied({name: chunk}, found[0])
        read = self.read(chunks)
        return None if read is None else _copied(*read)

    def steps_alike(self, chunks: Sequence[Any]) -> int | None:
        """Their steps if each of ``chunks`` is the one array of its stream and all have the same shape, else None."""
        first = self.read((chunks[0],)) if self._count == 1 else None
        if first is None:
            return None
        _, dtype, _, _, _, bounds = self._specs[0]
        shape, count = chunks[0].shape, len(chunks)
        if set(map(type, chunks)) != {_ndarray}:
            return None
        if [chunk.shape for chunk in chunks].count(shape) < count or [chunk.dtype for chunk in chunks].count(
            dtype
        ) < count:
            return None
        if bounds is not None and not all([within(chunk, bounds) for chunk in chunks if chunk.size]):
            return None
        return first[1]


def _copied(items: dict[str, Array], steps: int) -> tuple[dict[str, Array], int] | None:
    try:
        return {name: array.copy() for name, array in items.items()}, steps
    except MemoryError:  # a view of more than there is room for, which the long way refuses
        return None
