"""Many streams in one call: their states stacked, their chunks padded or grouped by length, all of them or none."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, StateError, raise_all
from rnncore.runtime.session.failures import enough_memory
from rnncore.runtime.session.run import Items, no_steps_message, own_arrays, run_arrays, run_items, split_items
from rnncore.runtime.session.session import Engine
from rnncore.runtime.streaming.callbacks import apply_hooks
from rnncore.runtime.streaming.holding import Holder
from rnncore.runtime.streaming.snapshot import check_count
from rnncore.runtime.streaming.state_rows import SelectedRows
from rnncore.runtime.streaming.stream import (
    Stream,
    belong_to,
    callbacks_of,
    hold_together,
    move_together,
    rows_of,
    waiting_in,
)
from rnncore.runtime.streaming.strides import Rest, join_rest, keep
from rnncore.runtime.tensors.outputs import one_or_all
from rnncore.runtime.tensors.padding import free_axes_problem, pack
from rnncore.runtime.tensors.specs import Layout
from rnncore.runtime.tensors.validation import bind_arguments, read_item

_getframe = sys._getframe


def push_many(engine: Engine, streams: Sequence[Stream], chunks: Sequence[Any]) -> list[Any]:
    """Push ``chunks[i]`` to ``streams[i]``; returns what each push would have returned.

    Raises InputError, StateError or StreamBusyError before any state has changed.
    """
    _check_streams(engine, streams, chunks)
    held: list[Holder] = []
    try:
        hold_together(streams, held, _getframe())
        raise_all([f"streams[{i}] is closed" for i, stream in enumerate(streams) if stream.closed], StateError)
        alike = _push_alike(engine, streams, chunks)
        return _push_held(engine, streams, chunks) if alike is None else alike
    finally:
        for holder in held:
            holder.clear()


def _check_streams(engine: Engine, streams: Sequence[Stream], chunks: Sequence[Any]) -> None:
    for name, value in (("streams", streams), ("chunks", chunks)):
        if not hasattr(value, "__getitem__") or not hasattr(value, "__len__"):
            raise InputError(f"{name} is a {type(value).__name__}, expected a list")
    if len(streams) != len(chunks):
        raise InputError(f"{len(streams)} streams but {len(chunks)} chunks: hand in one chunk for each stream")
    if not streams:
        raise InputError("the list of streams is empty: hand in at least one")
    alike = set(map(type, streams)) == {Stream} and len(set(streams)) == len(streams)
    if alike and all(belong_to(streams, engine)):
        return
    first_at: dict[int, int] = {}
    repeated = []
    strangers = []
    for i, stream in enumerate(streams):
        if not isinstance(stream, Stream):
            raise InputError(f"streams[{i}] is a {type(stream).__name__}, expected a Stream")
        first = first_at.setdefault(id(stream), i)
        if first != i:
            repeated.append(f"streams[{i}] is streams[{first}] again: join its chunks or push twice")
        if not all(belong_to([stream], engine)):
            strangers.append(f"streams[{i}] belongs to another model")
    raise_all(repeated)
    raise_all(strangers, StateError)


def _push_alike(engine: Engine, streams: Sequence[Stream], chunks: Sequence[Any]) -> list[Array] | None:
    """The common case, with as little as possible to do for each stream; None if it is another case.

    Each chunk is the one array of a model with one input and one output, all have the same shape, nobody looks on.
    """
    layout = engine.layout
    steps = engine.quick.steps_alike(chunks)
    ends = layout.signature.most_steps is not None
    if not steps or ends or len(layout.outputs) > 1 or any(callbacks_of(streams)):
        return None
    count = len(streams)
    slot = layout.inputs[0]
    selected = rows_of(streams)
    with enough_memory():
        arrays = {slot.name: pack(slot, chunks, steps)}
    outputs, finals = run_arrays(engine, arrays, np.full(count, steps, np.int64), steps, selected.gather())
    answers = own_arrays(layout.outputs[0], outputs[0], [steps] * count, steps)
    move_together(streams, [steps] * count, [(selected, finals)])
    return answers


def _push_held(engine: Engine, streams: Sequence[Stream], chunks: Sequence[Any]) -> list[Any]:
    layout = engine.layout
    items, lengths = _read_chunks(engine, chunks)
    most = layout.signature.most_steps
    if most is not None:  # what a snapshot counts is checked where the streams move
        for stream, steps in zip(streams, lengths, strict=True):
            check_count(stream.steps, steps, most)
    rests: list[Rest] = []
    pushed = list(lengths)
    if layout.waits:
        for i, stream in enumerate(streams):
            items[i], lengths[i], later = join_rest(layout, waiting_in(stream), items[i], lengths[i])
            rests.append(later)
    outputs: list[list[Array]] = [[] for _ in streams]
    finals: list[tuple[list[int], list[Array]]] = []
    for group in _groups(layout, lengths):
        group_lengths = [lengths[i] for i in group]
        steps = max(1, *group_lengths)
        states = rows_of([streams[i] for i in group]).gather()
        group_outputs, group_finals = run_items(engine, [items[i] for i in group], group_lengths, steps, states)
        for i, own in zip(group, split_items(layout, group_outputs, group_lengths, steps), strict=True):
            outputs[i] = own
        finals.append((group, group_finals))
    for own, steps in zip(outputs, lengths, strict=True):
        if not own:
            own.extend(np.zeros(slot.item_full_shape(steps), slot.dtype) for slot in layout.outputs)
    outputs = [
        apply_hooks(hooks, layout, own) if hooks and steps else own
        for hooks, own, steps in zip(callbacks_of(streams), outputs, lengths, strict=True)
    ]
    moved: list[int] = []
    parts: list[tuple[SelectedRows, list[Array]]] = []
    for group, group_finals in finals:
        rows = [row for row, i in enumerate(group) if lengths[i] > 0]
        if rows:
            selected = rows_of([streams[group[row]] for row in rows])
            parts.append((selected, [final[rows] for final in group_finals]))
            moved += [group[row] for row in rows]
    if rests:
        moved += _add_rests(layout, streams, moved, rests, parts)
    move_together([streams[i] for i in moved], [pushed[i] for i in moved], parts)
    return [one_or_all(layout, own) for own in outputs]


def _add_rests(
    layout: Layout,
    streams: Sequence[Stream],
    moved: Sequence[int],
    rests: Sequence[Rest],
    parts: list[tuple[SelectedRows, list[Array]]],
) -> list[int]:
    """Put what waits from now on into ``parts``, in the order of ``moved``; those that only wait become a part too."""
    still = [i for i in range(len(streams)) if i not in moved]
    if still:
        selected = rows_of([streams[i] for i in still])
        parts.append((selected, selected.gather()))
    rows = [[final[row : row + 1] for final in finals] for _, finals in parts for row in range(len(finals[0]))]
    for i, row in zip([*moved, *still], rows, strict=True):
        keep(layout, rests[i], row)
    return still


def _read_chunks(engine: Engine, chunks: Sequence[Any]) -> tuple[list[Items], list[int]]:
    layout = engine.layout
    several = len(layout.inputs) > 1
    problems: list[str] = []
    items: list[Items] = []
    lengths: list[int] = []
    for i, chunk in enumerate(chunks):
        read = engine.quick.read(chunk if several and type(chunk) is tuple else (chunk,))
        if read is not None:
            items.append(read[0])
            lengths.append(read[1])
            continue
        try:
            given = bind_arguments(layout.inputs, *_arguments(layout, chunk))
        except InputError as error:
            problems.append(f"chunk {i}: {error}")
            continue
        item, steps = read_item(layout, given, f", chunk {i}", problems, whole=False)
        items.append(item)
        lengths.append(steps)
    raise_all(problems)
    for slot in layout.inputs:
        problem = free_axes_problem(slot, [item[slot.name] for item in items])
        if problem:
            raise InputError(problem)
    return items, lengths


def _arguments(layout: Layout, chunk: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments of ``push`` that a chunk stands for."""
    if isinstance(chunk, Mapping):
        return (), chunk
    if len(layout.inputs) > 1 and isinstance(chunk, tuple | list):
        return tuple(chunk), {}
    return (chunk,), {}


def _groups(layout: Layout, lengths: Sequence[int]) -> list[list[int]]:
    """Which chunks share a call.  A chunk without steps needs one only to learn a timeless answer or a free width."""
    rows = list(range(len(lengths)))
    empty = [i for i in rows if lengths[i] == 0]
    if empty and layout.timeless_outputs and layout.lengths is None:
        raise InputError(no_steps_message(layout, empty))
    if layout.waits or (layout.fixed and not layout.timeless_outputs):
        rows = [i for i in rows if lengths[i] > 0]
    if layout.lengths is not None:
        return [rows] if rows else []
    return [[i for i in rows if lengths[i] == n] for n in sorted({lengths[i] for i in rows})]
