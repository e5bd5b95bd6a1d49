"""Some numbers of an output instead of all: the probability of one token, not of a whole vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.batching.padded import read_batch
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.format.signature import BATCH, PICKS, TIME, TensorSpec
from rnncore.runtime.session.session import Engine
from rnncore.runtime.tensors.specs import Slot
from rnncore.runtime.tensors.validation import read_array


def run_picked(engine: Engine, given: Mapping[str, Any], at: Any) -> Array:
    """Run the named arrays whole, and return what the one output has at the indices ``at`` [batch, time, picks].

    Raises InputError that lists every problem.
    """
    layout = engine.layout
    (output,) = layout.outputs if len(layout.outputs) == 1 else (None,)
    if output is None or len(output.shape) != 3 or output.shape[:2] != (BATCH, TIME):
        raise InputError("nothing can be picked from this model: it takes one output [batch, time, size]")
    size = output.shape[2]
    if not isinstance(size, int):
        raise InputError(f"nothing can be picked from output {output.name!r}: the size of its last axis is free")
    batch = read_batch(layout, given, None)
    problems: list[str] = []
    port = TensorSpec("at", "int64", (BATCH, TIME, PICKS), limit=size)
    indices = read_array(at, Slot.of(port), port.shape, "at", problems)
    if indices is not None and indices.shape[:2] != (batch.size, batch.steps):
        problems.append(
            f"at is for {indices.shape[0]} sequences of {indices.shape[1]} steps, the input has {batch.size} of "
            f"{batch.steps}"
        )
    raise_all(problems)
    assert indices is not None
    if indices.size == 0:
        return np.zeros(indices.shape, output.dtype)
    return engine.call_picked(batch.arrays, engine.initial_states(batch.size), indices)[output.name]
