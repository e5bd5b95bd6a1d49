"""The door through which the exporter sees recurrent layers.

While a :class:`Recorder` is active, :class:`rnncore.Recurrent` hands its work to the recorder instead of looping over
time, and :class:`rnncore.StreamingLayer` marks where its state comes in and goes out.  The recorder lives in
:mod:`rnncore.export`; this module only knows its shape, so that arrows run one way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rnncore.layers.recurrent import Recurrent
    from rnncore.layers.streaming import StreamingLayer


class Recorder(Protocol):
    """What stands in for the loop over time while a module is traced."""

    def record(
        self, layer: Recurrent, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Stand in for ``layer(x, state, lengths)``: x [batch, time, input_size], state None for the initial one."""
        ...

    def carry(
        self, layer: StreamingLayer, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[str, tuple[Tensor, ...], Tensor | None]:
        """Mark where a state comes in: (name of this call, the state to go on with, the lengths to heed or None)."""
        ...

    def release(self, call: str, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mark where the state of ``call`` goes out: y [batch, time, output_size] and ``state``, both to be used on."""
        ...


_active: ContextVar[Recorder | None] = ContextVar("rnncore_recorder", default=None)


def active_recorder() -> Recorder | None:
    """The recorder of the export that runs in this thread, or None."""
    return None if torch.compiler.is_dynamo_compiling() else _active.get()  # a context variable would break its graph


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Make ``recorder`` stand in for every recurrent layer called inside the block."""
    token = _active.set(recorder)
    try:
        yield
    finally:
        _active.reset(token)
