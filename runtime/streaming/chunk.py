"""One chunk as the caller hands it in, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.session.run import Items, no_steps_message
from rnncore.runtime.session.session import Engine
from rnncore.runtime.tensors.specs import Layout
from rnncore.runtime.tensors.validation import bind_arguments, read_item


def read_chunk(engine: Engine, chunks: Sequence[Any], named: Mapping[str, Any]) -> tuple[Items, int]:
    """The arguments of a push as own arrays by input name, and the number of steps.

    Raises InputError that lists every problem, the one of a chunk without steps that has no answer included.
    """
    layout = engine.layout
    problems: list[str] = []
    items, steps = read_item(layout, bind_arguments(layout.inputs, chunks, named), "", problems, whole=False)
    raise_all(problems)
    if steps == 0 and layout.timeless_outputs and layout.lengths is None:
        raise InputError(no_steps_message(layout, [0]))
    return {name: array.copy() for name, array in items.items()}, steps


def empty_outputs(layout: Layout) -> list[Array] | None:
    """The answer to a chunk without steps, or None if only the file itself knows it."""
    if not layout.fixed or layout.timeless_outputs:
        return None
    return blank_outputs(layout)


def blank_outputs(layout: Layout) -> list[Array]:
    """Outputs without a step, of one sequence."""
    return [np.zeros(slot.item_full_shape(0), slot.dtype) for slot in layout.outputs]
