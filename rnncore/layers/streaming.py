"""``StreamingLayer``: layers without a loop that carry a state from one chunk of a stream to the next."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rnncore.layers.base import RecurrentLayer, State, check_lengths, check_state, valid_steps
from rnncore.placeholder import active_recorder
from rnncore.runtime.errors import InputError


class StreamingLayer(RecurrentLayer):
    """A layer that computes a whole chunk at once, from the chunk and a state.

    A convolution over the past or a running sum needs no loop, yet it needs something of what came before.  A subclass
    defines :meth:`advance`; masking of padded steps, empty chunks, ONNX export and streaming follow from it.

    Args:
        input_size: features of one input step.
        output_size: features of one output step.
        state_sizes: name and size of each state, such as ``{"context": 160}``; empty for a layer without memory.

    Example::

        class RunningSum(StreamingLayer):
            def __init__(self, size):
                super().__init__(size, size, {"total": size})

            def advance(self, x, state, lengths):
                y = state[0].unsqueeze(1) + x.cumsum(1)  # x is zero at t >= length, so the sum holds there
                return y, (y[:, -1],)
    """

    def __init__(self, input_size: int, output_size: int, state_sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.input_size = input_size
        self.output_size = output_size
        self.state_sizes = dict(state_sizes)

    def advance(
        self, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One chunk: x [batch, time >= 1, input_size] and [batch, size] of each state to y and the new states.

        ``lengths`` is int64 [batch] or None when every step is valid; x is zero at t >= length.  The new states must be
        those after each row's last valid step.  It must be written in torch operations that leave batch and time free.
        """
        raise NotImplementedError(f"{type(self).__name__} must define advance(self, x, state, lengths)")

    def check_input(self, x: Tensor) -> None:
        """As for every layer; its dtype is that of the weights as well, unless autocast takes care of that."""
        super().check_input(x)
        weight = next((p for p in self.parameters() if p.is_floating_point()), None)
        if weight is not None and weight.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise InputError(
                f"{type(self).__name__}: input has dtype {x.dtype}, the weights have {weight.dtype} "
                f"(use x.to({weight.dtype}), or .to({x.dtype}) on the layer)"
            )

    def initial_state(self, batch: int | torch.SymInt, like: Tensor) -> tuple[Tensor, ...]:
        """Zeros, [batch, size] each, dtype and device of ``like``."""
        return tuple(like.new_zeros(1, size).expand(batch, -1) for size in self.state_sizes.values())

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(y, state after the last valid step); see :class:`rnncore.layers.base.RecurrentLayer`.

        Raises:
            InputError: x or lengths of the wrong rank, width, dtype or range.
            StateError: a state that does not fit the layer or the batch.
        """
        self.check_input(x)
        recorder = active_recorder()
        if recorder is not None:
            call, start, lengths = recorder.carry(self, x, state, lengths)
            return recorder.release(call, *self._run(x, start, lengths))
        if lengths is not None:
            lengths = check_lengths(lengths, x)
        start = (
            self.initial_state(x.shape[0], x)
            if state is None
            else check_state(state, self.state_sizes, x, type(self).__name__)
        )
        if x.shape[1] == 0 or x.shape[0] == 0:
            return x.new_zeros(x.shape[0], x.shape[1], self.output_size), start
        return self._run(x, start, lengths)

    def _run(self, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        if lengths is None:
            return self.advance(x, state, None)
        padding = ~valid_steps(lengths, x.shape[1])
        # Zeroed before as well: NaN in the padding would survive a product with zero, in gradients too.
        y, end = self.advance(x.masked_fill(padding, 0.0), state, lengths)
        return y.masked_fill(padding, 0.0), end
