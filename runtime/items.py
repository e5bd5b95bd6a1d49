"""Checked chunks of several streams, run in one call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnncore.runtime.binding import StateSet
from rnncore.runtime.engine import Engine
from rnncore.runtime.layout import Array, Layout, Slot
from rnncore.runtime.padding import pack

Items = dict[str, Array]
"""One checked chunk: every input of one sequence, without its batch axis."""


def run_items(
    engine: Engine, items: Sequence[Items], lengths: Sequence[int], steps: int, states: Sequence[StateSet]
) -> tuple[list[list[Array]], list[Array]]:
    """Run checked chunks in one call, padded to ``steps``.

    Returns the outputs of each chunk, own arrays cut to its length, and every final state as [batch, size].
    """
    stacked = {state.name: np.concatenate([own[k] for own in states]) for k, state in enumerate(engine.layout.states)}
    return run_stacked(engine, items, lengths, steps, stacked)


def run_stacked(
    engine: Engine, items: Sequence[Items], lengths: Sequence[int], steps: int, states: dict[str, Array]
) -> tuple[list[list[Array]], list[Array]]:
    """As :func:`run_items`, from states that are stacked already: [batch, size] each, by name."""
    layout = engine.layout
    arrays = {slot.name: pack(slot, [item[slot.name] for item in items], steps) for slot in layout.inputs}
    values = engine.call(arrays, states, np.array(lengths, np.int64), len(items), steps)
    columns = [_own_arrays(slot, values[slot.name], lengths, steps) for slot in layout.outputs]
    return [list(own) for own in zip(*columns, strict=True)], [values[state.output] for state in layout.states]


def _own_arrays(slot: Slot, output: Array, lengths: Sequence[int], steps: int) -> list[Array]:
    """The part of a whole output that belongs to each sequence, cut to its length; copies."""
    rows = slot.rows(output)
    if slot.time_axis is None:
        return [row.copy() for row in rows]
    if slot.item_time_axis == 0 and min(lengths) == steps:
        return [row.copy() for row in rows]
    return [slot.item_from_row(rows[i, :length]).copy() for i, length in enumerate(lengths)]


def no_steps_message(layout: Layout, rows: Sequence[int]) -> str:
    """Why a sequence without steps has no answer in a model with a timeless output and no lengths input."""
    names = ", ".join(repr(name) for name in layout.timeless_outputs)
    listed = ", ".join(str(row) for row in rows[:5]) + (", …" if len(rows) > 5 else "")
    return f"sequence {listed} has no steps, but output {names} needs at least one: leave empty sequences out"
