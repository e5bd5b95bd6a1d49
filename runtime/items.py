"""Checked chunks of several streams, run in one call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnncore.runtime.binding import StateSet
from rnncore.runtime.engine import Engine
from rnncore.runtime.layout import Array, Layout
from rnncore.runtime.padding import pack

Items = dict[str, Array]
"""One checked chunk: every input of one sequence, without its batch axis."""


def run_items(
    engine: Engine, items: Sequence[Items], lengths: Sequence[int], steps: int, states: Sequence[StateSet]
) -> tuple[list[list[Array]], list[Array]]:
    """Run checked chunks in one call, padded to ``steps``.

    Returns the outputs of each chunk, own arrays cut to its length, and every final state as [batch, size].
    """
    layout = engine.layout
    arrays = {slot.name: pack(slot, [item[slot.name] for item in items], steps) for slot in layout.inputs}
    stacked = {state.name: np.concatenate([own[k] for own in states]) for k, state in enumerate(layout.states)}
    values = engine.call(arrays, stacked, np.array(lengths, np.int64), len(items), steps)
    rows = [(slot, slot.rows(values[slot.name])) for slot in layout.outputs]
    outputs = [
        [row[i].copy() if slot.time_axis is None else slot.item_from_row(row[i, :length]).copy() for slot, row in rows]
        for i, length in enumerate(lengths)
    ]
    return outputs, [values[state.output] for state in layout.states]


def no_steps_message(layout: Layout, rows: Sequence[int]) -> str:
    """Why a sequence without steps has no answer in a model with a timeless output and no lengths input."""
    names = ", ".join(repr(name) for name in layout.timeless_outputs)
    listed = ", ".join(str(row) for row in rows[:5]) + (", …" if len(rows) > 5 else "")
    return f"sequence {listed} has no steps, but output {names} needs at least one: leave empty sequences out"
