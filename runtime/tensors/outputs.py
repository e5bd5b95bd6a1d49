"""Outputs as the caller gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnncore.runtime.tensors.specs import Layout


def one_or_all(layout: Layout, outputs: Sequence[Any]) -> Any:
    """What the caller gets: the array itself if there is one output, a dict by name otherwise."""
    if len(outputs) == 1:
        return outputs[0]
    return {slot.name: output for slot, output in zip(layout.outputs, outputs, strict=True)}
