"""A corpus that does not fit in memory: read, run and handed out a window at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.batching.ragged import Ragged, by_budget, check_ragged, run_ragged
from rnncore.runtime.counts import count_problems, is_number
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.session.helpers import Task, dismiss, start_helpers
from rnncore.runtime.session.run import Items
from rnncore.runtime.session.session import Engine
from rnncore.runtime.tensors.outputs import one_or_all
from rnncore.runtime.tensors.specs import Layout, Slot
from rnncore.runtime.tensors.validation import bind_arguments, read_item

Progress = Callable[[int, int], None]
"""Called with the sequences and the time steps that were run so far."""

Window = tuple[list[Items], list[int]]
"""Checked sequences, and the steps of each."""


def run_windows(
    engine: Engine,
    windows: Iterator[Window],
    *,
    batch_size: int,
    padding_budget: float,
    progress: Progress | None,
) -> Iterator[Any]:
    """The answer to each sequence, in order; see :meth:`rnncore.runtime.Model.run_iter`."""
    layout = engine.layout
    done = steps = 0
    for items, lengths in windows:
        answers = _answers(engine, items, lengths, batch_size, padding_budget)
        done += len(lengths)
        steps += sum(lengths)
        del items, lengths  # not kept while the caller works on the answers
        if progress is not None:
            progress(done, steps)
        answers.reverse()
        while answers:
            yield one_or_all(layout, answers.pop())


def read_windows(layout: Layout, sequences: Iterable[Any], window: int, *, ahead: bool) -> Iterator[Window]:
    """Checked sequences and their lengths, ``window`` of them at a time; ``ahead``: read by a thread of their own."""
    windows = _windows(layout, sequences, window)
    return _ahead(windows) if ahead else windows


def _windows(layout: Layout, sequences: Iterable[Any], window: int) -> Iterator[Window]:
    source = enumerate(sequences)
    done = 0
    while True:
        items: list[Items] = []
        lengths: list[int] = []
        for i, sequence in itertools.islice(source, window):
            item, length = _read(layout, sequence, i)
            items.append(item)
            lengths.append(length)
        if not items:
            return
        check_ragged(layout, items, lengths, done)
        done += len(items)
        read = [(items, lengths)]
        del items, lengths, item, sequence
        yield read.pop()  # nothing of it is kept here


def _ahead(windows: Iterator[Window]) -> Iterator[Window]:
    """The same windows, each read by a thread while the one before is in use."""
    reader = start_helpers(1, "rnncore-reader")
    try:
        reader.put(following := Task(partial(next, windows, None)))
        while True:
            following.wait()
            found = [following.result()]
            if found[0] is None:
                return
            reader.put(following := Task(partial(next, windows, None)))
            yield found.pop()
    finally:
        dismiss(reader, 1)


def _answers(
    engine: Engine, items: list[Items], lengths: list[int], batch_size: int, padding_budget: float
) -> list[list[Array]]:
    """The outputs of each sequence, as own arrays."""
    slots = engine.layout.inputs
    timeless = {s.name: _stacked(s, [item[s.name] for item in items]) for s in slots if not s.ragged}
    ragged = Ragged(items, lengths, timeless)
    outputs = run_ragged(engine, ragged, by_budget(batch_size, padding_budget))
    columns = [
        output if isinstance(output, list) else [row.copy() for row in slot.rows(output)]
        for slot, output in zip(engine.layout.outputs, outputs, strict=True)
    ]
    return [list(own) for own in zip(*columns, strict=True)]


def check_windows(
    sequences: Any, batch_size: int, window: int, padding_budget: float, progress: Progress | None
) -> None:
    """Raise InputError that lists every argument that cannot be used."""
    problems = count_problems("batch_size", batch_size) + count_problems("window", window)
    if not (is_number(padding_budget) and 0 <= padding_budget < float("inf")):
        problems.append(f"padding_budget is {padding_budget!r}, expected a share of at least 0")
    if not hasattr(sequences, "__iter__") and not hasattr(sequences, "__getitem__"):
        problems.append(f"sequences is a {type(sequences).__name__}, expected a list or anything else to iterate over")
    if progress is not None and not callable(progress):
        problems.append(f"progress is a {type(progress).__name__}, expected a function or None")
    raise_all(problems)


def _read(layout: Layout, sequence: Any, number: int) -> tuple[Items, int]:
    if isinstance(sequence, Mapping):
        arguments: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), sequence)
    elif len(layout.inputs) > 1 and isinstance(sequence, tuple | list):
        arguments = (tuple(sequence), {})
    else:
        arguments = ((sequence,), {})
    problems: list[str] = []
    try:
        read = read_item(layout, bind_arguments(layout.inputs, *arguments), f", sequence {number}", problems)
    except InputError as error:
        raise InputError(f"sequence {number}: {error}") from None
    raise_all(problems)
    return read


def _stacked(slot: Slot, items: list[Array]) -> Array:
    return np.stack(items, axis=slot.batch_axis)
