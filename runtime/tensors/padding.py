"""Sequences of several lengths in one array, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.tensors.specs import Slot


def split(slot: Slot, output: Array, lengths: Sequence[int]) -> list[Array]:
    """The items of a whole output of sequences of these steps, each a copy, cut to its length if it has a time axis."""
    rows = slot.rows(output)
    if slot.time_axis is None:  # its other free axes are as long in all items that shared a call
        return [row.copy() for row in rows]
    return [slot.item_from_row(rows[i, : slot.steps(n)]).copy() for i, n in enumerate(lengths)]


def pack(slot: Slot, items: Sequence[Array], steps: int) -> Array:
    """One whole array from checked items of one slot, padded to ``steps`` with zeros, or what stands for them among ids."""
    steps = slot.steps(steps)
    plain = slot.batch_axis == 0 and slot.item_time_axis in (None, 0) and len(slot.item_shape) > 0
    if plain and len(items) == 1 and (slot.time_axis is None or len(items[0]) == steps):
        return np.ascontiguousarray(items[0])[None]
    if plain and (slot.time_axis is None or set(map(len, items)) == {steps}):
        return np.concatenate(items).reshape(len(items), *items[0].shape)
    shape = list(items[0].shape)
    if slot.item_time_axis is not None:
        shape[slot.item_time_axis] = steps
    shape.insert(slot.batch_axis, len(items))
    array = np.full(shape, slot.blank, slot.dtype) if slot.blank else np.zeros(shape, slot.dtype)
    rows = slot.rows(array)
    for i, item in enumerate(items):
        if slot.item_time_axis is None:
            rows[i] = item
        else:
            row = slot.item_row(item)
            rows[i, : len(row)] = row
    return array


def free_axes_problem(slot: Slot, items: Sequence[Array]) -> str | None:
    """Items can share an array only if they agree on every axis but time."""
    if slot.fixed:
        return None
    shapes = {tuple(d for axis, d in enumerate(item.shape) if axis != slot.item_time_axis) for item in items}
    return (
        f"items of input {slot.name!r} differ in an axis other than time: {sorted(shapes)}" if len(shapes) > 1 else None
    )
