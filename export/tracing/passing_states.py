"""The half of a recorder that leaves layers without a loop as they are."""

from __future__ import annotations

from torch import Tensor

from rnncore.layers import StreamingLayer


class PassingStates:
    """Hands the states of a layer without a loop through: a :class:`rnncore.placeholder.Recorder` that lifts none."""

    def carry(
        self, layer: StreamingLayer, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[str, tuple[Tensor, ...], Tensor | None]:
        """See :class:`rnncore.placeholder.Recorder`."""
        return "", layer.initial_state(x.shape[0], x) if state is None else state, lengths

    def release(self, call: str, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :class:`rnncore.placeholder.Recorder`."""
        return y, state
