"""A state as a caller hands it in, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import StateError, raise_all
from rnncore.runtime.format.signature import BATCH, TensorSpec
from rnncore.runtime.streaming.snapshot import MOST_STEPS
from rnncore.runtime.tensors.specs import Layout, Slot
from rnncore.runtime.tensors.validation import read_array


def read_steps(steps: Any) -> int:
    """A count of steps as a caller hands it in; StateError when it is none."""
    if isinstance(steps, bool | np.bool_) or not isinstance(steps, int | np.integer) or not 0 <= steps <= MOST_STEPS:
        raise StateError(f"steps is {steps!r}, expected an integer from 0 to {MOST_STEPS}: how many led to this state")
    return int(steps)


def read_state(layout: Layout, state: Mapping[str, Any]) -> tuple[Array, ...]:
    """The checked arrays of a state, [size] each, in the order of the signature; StateError lists every problem."""
    if not isinstance(state, Mapping):
        raise StateError(f"a state is a mapping from name to array, got a {type(state).__name__}")
    names = [slot.name for slot in layout.states]
    problems = [f"state {name!r} is missing" for name in names if name not in state]
    problems += [
        f"there is no state {name!r}, expected {', '.join(names) or 'none'}" for name in state if name not in names
    ]
    values = []
    for known in layout.states:
        if known.name in state:
            slot = Slot.of(TensorSpec(known.name, known.dtype.name, (BATCH, *known.item_shape)))
            value = read_array(state[known.name], slot, slot.item_shape, f"state {known.name!r}", problems)
            if value is not None:
                values.append(value.reshape(-1))
    raise_all(problems, StateError)
    return tuple(values)
