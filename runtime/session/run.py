"""Checked chunks of several streams, run in one call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError
from rnncore.runtime.session.failures import enough_memory
from rnncore.runtime.session.session import Engine
from rnncore.runtime.tensors.padding import pack
from rnncore.runtime.tensors.specs import Layout, Slot

Items = dict[str, Array]
"""One checked chunk: every input of one sequence, without its batch axis."""


def run_items(
    engine: Engine, items: Sequence[Items], lengths: Sequence[int], steps: int, states: Sequence[Array]
) -> tuple[list[Array], list[Array]]:
    """Run checked chunks in one call, padded to ``steps``, from ``states``, [batch, size] each.

    Returns every output, whole, and every final state as [batch, size].
    """
    arrays = pack_items(engine.layout, items, steps)
    return run_arrays(engine, arrays, np.array(lengths, np.int64), steps, states)


def pack_items(layout: Layout, items: Sequence[Items], steps: int) -> dict[str, Array]:
    """Whole inputs by name, from checked chunks that are padded to ``steps``."""
    with enough_memory():
        return {slot.name: pack(slot, [item[slot.name] for item in items], steps) for slot in layout.inputs}


def run_arrays(
    engine: Engine, arrays: dict[str, Array], lengths: NDArray[np.int64], steps: int, states: Sequence[Array]
) -> tuple[list[Array], list[Array]]:
    """As :func:`run_items`, with inputs that are whole already."""
    layout = engine.layout
    named = {state.name: array for state, array in zip(layout.states, states, strict=True)}
    values = engine.call(arrays, named, lengths, len(lengths), steps)
    finals = [values[state.output] for state in layout.states]
    for state, final in zip(layout.states, finals, strict=True):
        if final.shape != (len(lengths), state.size) or final.dtype != state.dtype:
            raise InputError(
                f"the model made {final.dtype}{list(final.shape)} of the state {state.name!r}, expected "
                f"{state.dtype}{[len(lengths), state.size]}: its graph does not do what it says for this input"
            )
    return [values[slot.name] for slot in layout.outputs], finals


def split_items(layout: Layout, outputs: Sequence[Array], lengths: Sequence[int], steps: int) -> list[list[Array]]:
    """Of whole outputs what belongs to each sequence, cut to its length; copies."""
    columns = [own_arrays(slot, output, lengths, steps) for slot, output in zip(layout.outputs, outputs, strict=True)]
    return [list(own) for own in zip(*columns, strict=True)]


def own_arrays(slot: Slot, output: Array, lengths: Sequence[int], steps: int) -> list[Array]:
    """The part of a whole output that belongs to each sequence, cut to its length; copies."""
    return [view.copy() for view in item_views(slot, output, lengths, steps)]


def item_views(slot: Slot, output: Array, lengths: Sequence[int], steps: int) -> list[Array]:
    """As :func:`own_arrays`, but views."""
    rows = slot.rows(output)
    if slot.time_axis is None or (slot.item_time_axis == 0 and min(lengths) == steps):
        return list(rows)
    return [slot.item_from_row(rows[i, : slot.steps(length)]) for i, length in enumerate(lengths)]


def no_steps_message(layout: Layout, rows: Sequence[int]) -> str:
    """Why a sequence without steps has no answer in a model with a timeless output and no lengths input."""
    names = ", ".join(repr(name) for name in layout.timeless_outputs)
    listed = ", ".join(str(row) for row in rows[:5]) + (", …" if len(rows) > 5 else "")
    return f"sequence {listed} has no steps, but output {names} needs at least one: leave empty sequences out"
