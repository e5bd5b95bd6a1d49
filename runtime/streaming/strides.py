"""Chunks of any size for a model that takes several steps at a stride, or again those that it has had.

What is too little waits for the next chunk, and so does what the next run begins with once more.  What waits is a state of
the stream like any other, so that it is saved, restored and forked with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.tensors.specs import Layout, Slot

Rest = dict[str, Array]
"""What waits, by name of the input, without its batch axis."""


def waiting(layout: Layout, states: Sequence[Array]) -> Rest:
    """What waits in ``states``, [1, size] each."""
    kept = dict(zip((state.name for state in layout.states), states, strict=True))
    return {
        slot.name: _from_state(slot, kept[f"{slot.name}.rest"], int(kept[f"{slot.name}.rest.steps"][0, 0]), layout)
        for slot in _timed(layout)
    }


def join_rest(layout: Layout, rest: Rest, items: Mapping[str, Array], steps: int) -> tuple[dict[str, Array], int, Rest]:
    """The chunk after what waited: the part that can be run, its steps, and what waits from now on.

    The last steps of what is run wait again, where runs overlap.
    """
    first = _timed(layout)[0]
    total = steps + rest[first.name].shape[first.item_time_axis or 0]
    run = layout.run_of(total)
    kept_from = max(0, run - layout.overlap)
    now, later = dict(items), {}
    for slot in _timed(layout):
        joined = np.concatenate([rest[slot.name], items[slot.name]], slot.item_time_axis or 0)
        rows = slot.item_row(joined)
        now[slot.name] = np.ascontiguousarray(slot.item_from_row(rows[:run]))
        later[slot.name] = slot.item_from_row(rows[kept_from:])
    return now, run, later


def join_row(
    layout: Layout, states: Sequence[Array], row: int, items: Mapping[str, Array], steps: int
) -> tuple[dict[str, Array], int, Rest]:
    """:func:`join_rest` after what waits in one row of ``states``, [rows, size] each."""
    return join_rest(layout, waiting(layout, [state[row : row + 1] for state in states]), items, steps)


def waiting_steps(layout: Layout, states: Sequence[Array]) -> list[int]:
    """How many steps wait in each row of ``states``, [rows, size] each."""
    name = f"{_timed(layout)[0].name}.rest.steps"
    counts = next(array for slot, array in zip(layout.states, states, strict=True) if slot.name == name)
    return [max(0, min(int(count), layout.most_waiting)) for count in counts[:, 0]]


def keep(layout: Layout, rest: Rest, states: Sequence[Array]) -> None:
    """Write what waits into the buffers ``states``, [1, size] each."""
    for state, buffer in zip(layout.states[layout.graph_states :], states[layout.graph_states :], strict=True):
        name = state.name.removesuffix(".steps").removesuffix(".rest")
        slot = next(slot for slot in layout.inputs if slot.name == name)
        rows = slot.item_row(rest[name])
        buffer[...] = 0
        if state.name.endswith(".steps"):
            buffer[...] = len(rows)
        else:
            _room(slot, buffer, layout)[: len(rows)] = rows


def _timed(layout: Layout) -> list[Slot]:
    return [slot for slot in layout.inputs if slot.time_axis is not None]


def _room(slot: Slot, buffer: Array, layout: Layout) -> Array:
    """A buffer [1, size] as a view [most steps that wait, ...]."""
    return slot.item_row(buffer.reshape(slot.item_full_shape(layout.most_waiting)))


def _from_state(slot: Slot, buffer: Array, steps: int, layout: Layout) -> Array:
    return slot.item_from_row(_room(slot, buffer, layout)[: max(0, min(steps, layout.most_waiting))].copy())
