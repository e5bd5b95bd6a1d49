"""Padded sequences in one call, whole: read the arguments, run, and leave nothing in the padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.format.signature import TIME
from rnncore.runtime.session.run import no_steps_message
from rnncore.runtime.session.session import Engine
from rnncore.runtime.tensors.lengths import read_lengths
from rnncore.runtime.tensors.specs import Layout, Slot
from rnncore.runtime.tensors.validation import (
    NamedSizes,
    agreed,
    apparent_steps,
    id_problem,
    limit_problems,
    read_array,
    read_option,
    tied_problems,
    too_many_steps,
    within,
)


@dataclass(frozen=True)
class Batch:
    """Checked inputs of one call.

    arrays: whole arrays by input name, padded with zeros.
    lengths: int64 [size], or None when every row has all ``steps``.
    """

    arrays: dict[str, Array]
    size: int
    steps: int
    lengths: NDArray[np.int64] | None


def read_batch(layout: Layout, given: Mapping[str, Any], lengths: Any) -> Batch:
    """Check the named arrays of a call; raises InputError that lists every problem."""
    problems: list[str] = []
    arrays: dict[str, Array] = {}
    sizes: dict[str, int] = {}
    steps: dict[str, int] = {}
    others: NamedSizes = {}
    for slot in layout.inputs:
        if slot.option is not None:
            continue
        time_axis = slot.time_axis if slot.chunk is None and slot.counts_steps else None
        too_many = too_many_steps(layout, apparent_steps(given[slot.name], time_axis))
        if too_many:  # told before anything is copied
            problems.extend(too_many)
            continue
        # Ids in the padding are nobody's: where there is any, all are checked once it is known.
        checked_now = slot if lengths is None or slot.time_axis is None else replace(slot, bounds=None)
        array = read_array(given[slot.name], checked_now, slot.shape, f"input {slot.name!r}", problems)
        if array is not None:
            arrays[slot.name] = array
            sizes[slot.name] = array.shape[slot.batch_axis]
            if slot.counts_steps:
                steps[slot.name] = array.shape[slot.time_axis or 0]
            for axis, name in slot.named:
                others.setdefault(name, {})[slot.name] = array.shape[axis + (axis >= slot.batch_axis)]
    size = agreed(sizes, "sequences", problems)
    step_count = agreed(steps, "steps", problems)
    problems.extend(too_many_steps(layout, step_count))
    for slot in layout.options:
        array = read_option(given, slot, size, f"input {slot.name!r}", problems)
        if array is not None:
            arrays[slot.name] = array
            agreed({**sizes, slot.name: array.shape[slot.batch_axis]}, "sequences", problems)
    problems.extend(limit_problems(layout, {TIME: steps, **others}))
    for slot in layout.inputs:
        if slot.tied and slot.name in arrays:
            item = np.delete(arrays[slot.name].shape, slot.batch_axis).tolist()
            problems.extend(tied_problems(slot, item, {TIME: steps, **others}, f"input {slot.name!r}"))
    raise_all(problems)
    if size == 0:
        raise InputError("the batch is empty: hand in at least one sequence")
    if lengths is None:
        return Batch(arrays, size, step_count, None)
    if not layout.timed:
        raise InputError("lengths were given, but no input of this model has a time axis")
    checked = read_lengths(lengths, size, step_count)
    for slot in layout.inputs:
        if slot.time_axis is not None and slot.bounds is not None:
            arrays[slot.name] = _checked_ids(slot, arrays[slot.name], checked, problems)
    raise_all(problems)
    limits = layout.signature.axis(TIME)
    wrong = [row for row, length in enumerate(checked.tolist()) if not limits.takes(length)] if limits.bounded else []
    if wrong:
        raise InputError(f"lengths[{wrong[0]}] is {checked[wrong[0]]}, the model takes {limits.expected} steps")
    return Batch(arrays, size, step_count, None if (checked == step_count).all() else checked)


def _checked_ids(slot: Slot, array: Array, lengths: NDArray[np.int64], problems: list[str]) -> Array:
    """``array`` with ids that the model takes in its padding; adds to ``problems`` for an id elsewhere."""
    assert slot.bounds is not None and slot.time_axis is not None
    if not array.size or within(array, slot.bounds):
        return array
    array = array.copy()
    slot.rows(array)[np.arange(array.shape[slot.time_axis]) >= slot.each_steps(lengths)[:, None]] = slot.blank
    if not within(array, slot.bounds):
        problems.append(f"input {slot.name!r} {id_problem(array, slot.bounds)}")
    return array


def run_batch(engine: Engine, batch: Batch) -> dict[str, Array]:
    """Whole outputs by name; steps at or beyond the length of a row are zero."""
    layout = engine.layout
    if batch.steps == 0 and layout.timed:
        return _run_without_steps(engine, batch)
    if batch.lengths is None or layout.lengths is not None or _padding_is_harmless(layout, batch.lengths):
        outputs = engine.answer(batch.arrays, batch.lengths, batch.size, batch.steps)
    else:
        outputs = _run_by_length(engine, batch, batch.lengths)
    if batch.lengths is not None:
        for slot in layout.outputs:
            if slot.time_axis is not None:
                padding = np.arange(slot.steps(batch.steps)) >= slot.each_steps(batch.lengths)[:, None]
                slot.rows(outputs[slot.name])[padding] = 0
    return outputs


def _padding_is_harmless(layout: Layout, lengths: NDArray[np.int64]) -> bool:
    """A causal model never looks ahead into the padding, and what it says there is cut off.

    One that takes strides of several steps does look ahead to the end of the last one.
    """
    whole = layout.stride == 1 or not ((lengths - layout.overlap) % layout.stride).any()
    return layout.signature.causal and not layout.timeless_outputs and whole


def _run_without_steps(engine: Engine, batch: Batch) -> dict[str, Array]:
    """Outputs for no step at all, which onnxruntime's loops get wrong."""
    layout = engine.layout
    if layout.timeless_outputs and layout.lengths is None:
        raise InputError(no_steps_message(layout, range(batch.size)))
    if layout.fixed and not layout.timeless_outputs:
        return {slot.name: np.zeros(slot.full_shape(batch.size, 0), slot.dtype) for slot in layout.outputs}
    # One padded step and lengths of zero: the file itself knows what no step means, and how wide its outputs are.
    arrays = {slot.name: _one_blank_step(slot, batch.arrays[slot.name]) for slot in layout.inputs}
    nothing = np.zeros(batch.size, np.int64)
    values = engine.call(arrays, engine.initial_states(batch.size), nothing, batch.size, 1)
    outputs = {slot.name: values[slot.name] for slot in layout.outputs}
    for slot in layout.outputs:
        if slot.time_axis is not None:
            outputs[slot.name] = np.take(outputs[slot.name], [], axis=slot.time_axis)
    return outputs


def _one_blank_step(slot: Slot, array: Array) -> Array:
    if slot.time_axis is None:
        return array
    shape = [slot.steps(1) if axis == slot.time_axis else d for axis, d in enumerate(array.shape)]
    return np.full(shape, slot.blank, slot.dtype)


def _run_by_length(engine: Engine, batch: Batch, lengths: NDArray[np.int64]) -> dict[str, Array]:
    """One call for each distinct length, for a file that cannot tell padding from data."""
    layout = engine.layout
    empty = [int(row) for row in np.flatnonzero(lengths == 0)]
    if empty and layout.timeless_outputs:
        raise InputError(no_steps_message(layout, empty))
    outputs: dict[str, Array] = {}
    for steps in [int(n) for n in np.unique(lengths) if n > 0]:
        rows = np.flatnonzero(lengths == steps)
        arrays = {slot.name: _part(slot, batch.arrays[slot.name], rows, steps) for slot in layout.inputs}
        values = engine.call(arrays, engine.initial_states(len(rows)), None, len(rows), steps)
        for slot in layout.outputs:
            value = values[slot.name]
            if slot.name not in outputs:
                outputs[slot.name] = _blank(slot, value.shape, batch)
            if slot.time_axis is None:
                slot.rows(outputs[slot.name])[rows] = slot.rows(value)
            else:
                slot.rows(outputs[slot.name])[rows, : slot.steps(steps)] = slot.rows(value)
    if not outputs:
        empty_outputs = _run_without_steps(engine, batch)
        return {slot.name: _blank(slot, empty_outputs[slot.name].shape, batch) for slot in layout.outputs}
    return outputs


def _part(slot: Slot, array: Array, rows: NDArray[np.int64], steps: int) -> Array:
    part = np.take(array, rows, axis=slot.batch_axis)
    if slot.time_axis is None:
        return part
    return np.ascontiguousarray(part[(slice(None),) * slot.time_axis + (slice(slot.steps(steps)),)])


def _blank(slot: Slot, like: tuple[int, ...], batch: Batch) -> Array:
    """Zeros for the whole batch, other axes as in the output of one group."""
    shape = list(like)
    shape[slot.batch_axis] = batch.size
    if slot.time_axis is not None:
        shape[slot.time_axis] = slot.steps(batch.steps)
    return np.zeros(shape, slot.dtype)
