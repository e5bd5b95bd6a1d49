"""Sequences of any lengths, whole: read one by one, run in groups of similar length, answered in the caller's order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.batching.buckets import buckets, quickest
from rnncore.runtime.batching.padded import Batch, run_batch
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.session.failures import enough_memory
from rnncore.runtime.session.run import Items, no_steps_message
from rnncore.runtime.session.session import Engine
from rnncore.runtime.tensors.array_likes import rows_of
from rnncore.runtime.tensors.fast_validation import FastReader
from rnncore.runtime.tensors.padding import free_axes_problem, pack, split
from rnncore.runtime.tensors.specs import Layout, Slot
from rnncore.runtime.tensors.validation import agreed, read_array, read_item, read_option


@dataclass(frozen=True)
class Ragged:
    """Checked sequences.

    items: the inputs whose size may differ from sequence to sequence, of each of them.
    lengths: steps of each sequence.
    timeless: the other inputs, whole.
    """

    items: list[Items]
    lengths: list[int]
    timeless: dict[str, Array]


def read_ragged(layout: Layout, given: Mapping[str, Any], quick: FastReader) -> Ragged | None:
    """Check named arguments that are lists of sequences; None if they are arrays.

    Raises InputError that lists every problem.
    """
    if len(layout.inputs) == 1 and type(only := given[layout.inputs[0].name]) is list and only:
        exact = _read_exact(layout, only, quick)
        if exact is not None:
            return exact
    timed = [slot for slot in layout.inputs if slot.ragged]
    columns = {slot.name: rows_of(given[slot.name]) for slot in timed}
    given = {**given, **{name: rows for name, rows in columns.items() if rows is not None}}
    lists = [name for name, rows in columns.items() if rows is not None]
    if not lists:
        return None
    if len(lists) < len(timed):
        others = ", ".join(repr(slot.name) for slot in timed if slot.name not in lists)
        raise InputError(f"input {lists[0]!r} is a list of sequences, {others} is not: use lists for both")
    problems: list[str] = []
    size = agreed({slot.name: len(given[slot.name]) for slot in timed}, "sequences", problems)
    raise_all(problems)
    if size == 0:
        raise InputError("the list of sequences is empty: hand in at least one")
    read = [
        read_item(layout, {slot.name: given[slot.name][i] for slot in timed}, f", item {i}", problems)
        for i in range(size)
    ]
    timeless: dict[str, Array] = {}
    for slot in layout.inputs:
        if slot.ragged:
            continue
        label = f"input {slot.name!r}"
        if slot.option is not None:
            array = read_option(given, slot, size, label, problems)
        else:
            array = read_array(given[slot.name], slot, slot.shape, label, problems)
        if array is not None:
            timeless[slot.name] = array
            agreed({timed[0].name: size, slot.name: array.shape[slot.batch_axis]}, "sequences", problems)
    raise_all(problems)
    items = [item for item, _ in read]
    lengths = [steps for _, steps in read]
    check_ragged(layout, items, lengths)
    return Ragged(items, lengths, timeless)


def _read_exact(layout: Layout, given: Sequence[Any], quick: FastReader) -> Ragged | None:
    """The sequences of a model of one input if nothing is to be converted, as a rule; None if somebody has to look closer."""
    items: list[Items] = []
    lengths: list[int] = []
    for item in given:
        read = quick.read((item,))
        if read is None:
            return None
        items.append(read[0])
        lengths.append(read[1])
    check_ragged(layout, items, lengths)
    return Ragged(items, lengths, {})


def check_ragged(layout: Layout, items: Sequence[Items], lengths: Sequence[int], first: int = 0) -> None:
    """Raise InputError if the checked sequences, numbered from ``first``, cannot be answered together."""
    for slot in () if layout.fixed else layout.inputs:
        if slot.ragged and not slot.named and not slot.tied:
            problem = free_axes_problem(slot, [item[slot.name] for item in items])
            if problem:
                raise InputError(problem)
    if 0 not in lengths:
        return
    empty = [first + i for i, steps in enumerate(lengths) if steps == 0]
    if layout.timed and layout.timeless_outputs and layout.lengths is None:
        raise InputError(no_steps_message(layout, empty))


def run_ragged(
    engine: Engine, ragged: Ragged, group: Callable[[Sequence[int]], list[list[int]]] = quickest
) -> list[list[Array] | Array]:
    """For each output a list of [time_i, ...], or one array [batch, ...] if its size is the same for all sequences.

    group: which of some lengths share a call.
    """
    layout = engine.layout
    size = len(ragged.items)
    results: list[list[Array] | Array | None] = [
        [np.empty(0)] * size if slot.ragged else None for slot in layout.outputs
    ]
    for rows in _groups(layout, ragged, group):
        outputs = run_batch(engine, _alone(layout, ragged, rows[0]) if len(rows) == 1 else _batch(layout, ragged, rows))
        for k, slot in enumerate(layout.outputs):
            output, result = outputs[slot.name], results[k]
            if len(rows) == 1 and isinstance(result, list):
                result[rows[0]] = slot.item_from_row(slot.rows(output)[0]).copy()
            else:
                results[k] = _placed(slot, result, output, rows, ragged)
    return [result for result in results if result is not None]


def by_budget(batch_size: int, padding_budget: float) -> Callable[[Sequence[int]], list[list[int]]]:
    """:func:`rnncore.runtime.batching.buckets.buckets` with these limits."""
    return lambda lengths: buckets(lengths, batch_size=batch_size, padding_budget=padding_budget)


def _groups(layout: Layout, ragged: Ragged, group: Callable[[Sequence[int]], list[list[int]]]) -> list[list[int]]:
    """Which sequences share a call: those that ``group`` puts together, of the same size along every other axis."""
    places = [(slot.name, axis) for slot in layout.inputs for axis, _ in slot.named]
    if not places:
        return group(ragged.lengths)
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, item in enumerate(ragged.items):
        alike.setdefault(tuple(item[name].shape[axis] for name, axis in places), []).append(i)
    return [[own[i] for i in rows] for own in alike.values() for rows in group([ragged.lengths[i] for i in own])]


def _alone(layout: Layout, ragged: Ragged, row: int) -> Batch:
    """One sequence as a batch, with as little work as can be: a list is not to cost more than its sequences one by one."""
    item, steps = ragged.items[row], ragged.lengths[row]
    if not ragged.timeless and not any(slot.batch_axis for slot in layout.inputs):
        return Batch({name: np.ascontiguousarray(array)[None] for name, array in item.items()}, 1, steps, None)
    return _batch(layout, ragged, [row])


def _batch(layout: Layout, ragged: Ragged, rows: list[int]) -> Batch:
    lengths = [ragged.lengths[i] for i in rows]
    most = max(lengths)
    arrays = {}
    with enough_memory():
        for slot in layout.inputs:
            if not slot.ragged:
                arrays[slot.name] = np.take(ragged.timeless[slot.name], rows, axis=slot.batch_axis)
            else:
                arrays[slot.name] = pack(slot, [ragged.items[i][slot.name] for i in rows], most)
    return Batch(arrays, len(rows), most, None if min(lengths) == most else np.array(lengths, np.int64))


def _placed(
    slot: Slot, result: list[Array] | Array | None, output: Array, rows: list[int], ragged: Ragged
) -> list[Array] | Array:
    """``result`` with the output of one group in its places."""
    if isinstance(result, list):
        for i, own in zip(rows, split(slot, output, [ragged.lengths[i] for i in rows]), strict=True):
            result[i] = own
        return result
    if result is None:
        shape = list(output.shape)
        shape[slot.batch_axis] = len(ragged.items)
        result = np.empty(shape, output.dtype)
    slot.rows(result)[rows] = slot.rows(output)
    return result
