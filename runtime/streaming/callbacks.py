"""Callbacks on the outputs of a stream: to watch them (endpointing) or to change them (hot-word bias)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError
from rnncore.runtime.tensors.outputs import one_or_all
from rnncore.runtime.tensors.specs import Layout, Slot

Hook = Callable[[Any], Any]
"""Called with what ``push`` is about to return.  Returns None to leave it, or arrays of the same shapes to replace it."""


def check_hook(callback: Any) -> None:
    """Raise InputError if it cannot be called: told when it is handed in, not by every push."""
    if not callable(callback):
        raise InputError(f"the output callback is a {type(callback).__name__}, expected a function")


def apply_hooks(hooks: Sequence[Hook], layout: Layout, outputs: list[Array]) -> list[Array]:
    """The outputs after every hook, each of which sees what the one before it made.

    Raises InputError if a hook returns something else than None or arrays of the same shapes; whatever a hook raises
    is passed on.
    """
    for hook in hooks:
        replacement = hook(one_or_all(layout, outputs))
        if replacement is None:
            continue
        given = replacement if len(outputs) > 1 else {layout.outputs[0].name: replacement}
        if not isinstance(given, Mapping):
            raise InputError(f"an output callback returned a {type(given).__name__}, expected None or a dict by name")
        unknown = sorted(set(given) - {slot.name for slot in layout.outputs})
        if unknown:
            raise InputError(f"an output callback returned {', '.join(unknown)}, which are no outputs of this model")
        outputs = [
            _replacement(slot, given[slot.name], output) if slot.name in given else output
            for slot, output in zip(layout.outputs, outputs, strict=True)
        ]
    return outputs


def _replacement(slot: Slot, value: Any, output: Array) -> Array:
    array = np.asarray(value)
    if array.shape != output.shape or not np.can_cast(array.dtype, output.dtype, "same_kind"):
        raise InputError(
            f"an output callback returned {array.dtype}{list(array.shape)} for {slot.name!r}, "
            f"expected {output.dtype}{list(output.shape)}"
        )
    return array.astype(output.dtype, copy=False)
