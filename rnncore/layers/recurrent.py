"""``Recurrent``: any cell, along time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rnncore.cells.base import Cell
from rnncore.layers.base import RecurrentLayer, State, check_lengths, check_state, valid_steps
from rnncore.layers.kernels.selection import Sequences, select_kernel
from rnncore.layers.torch_cells import as_cell
from rnncore.layers.weight_drop import check_weight_drop, run_with_dropped_weights
from rnncore.placeholder import active_recorder
from rnncore.runtime.errors import InputError

if TYPE_CHECKING:
    from rnncore.layers.kernels.compiled import CompiledSteps


class Recurrent(RecurrentLayer):
    """Run a cell along the time axis.

    Args:
        cell: what one step computes; a ``torch.nn.LSTMCell``, ``GRUCell`` or ``RNNCell`` may be given as well, its
            parameters are shared and its twin of rnncore runs.
        reverse: run from the last valid step to the first; outputs keep their places in time.
        fused: use torch's fused kernel where one computes exactly this cell (same numbers, faster),
            and take weight gradients out of the loop; False always loops step by step, second derivatives included.
        weight_drop: probability of zeroing a recurrent weight (``weight_hh``) for a whole call, while training; see
            :func:`rnncore.layers.weight_drop.run_with_dropped_weights`.

    Shapes: x [batch, time, cell.input_size] -> y [batch, time, cell.output_size]; the state is a tuple with one
    [batch, size] tensor for each of ``cell.state_sizes``.
    """

    def __init__(
        self, cell: Cell | nn.RNNCellBase, *, reverse: bool = False, fused: bool = True, weight_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.cell = cell = as_cell(cell)
        check_weight_drop(cell, weight_drop)
        self.weight_drop = weight_drop
        self.reverse = reverse
        self.fused = fused
        self.compiled: CompiledSteps | None = None  # see rnncore.compile_steps
        self.input_size = cell.input_size
        self.output_size = cell.output_size

    def check_input(self, x: Tensor) -> None:
        """As for every layer; its dtype is that of the weights as well, unless autocast takes care of that."""
        super().check_input(x)
        weight = next(self.cell.parameters(), None)
        if weight is None or x.dtype == getattr(self.cell, "dtype", weight.dtype) or not weight.is_floating_point():
            return
        if not torch.is_autocast_enabled(x.device.type):
            raise InputError(
                f"{type(self).__name__}: input has dtype {x.dtype}, the weights have {weight.dtype} "
                f"(use x.to({weight.dtype}), or .to({x.dtype}) on the layer)"
            )

    def initial_state(self, batch: int | torch.SymInt, like: Tensor) -> tuple[Tensor, ...]:
        """The cell's initial state, each [batch, size]."""
        return self.cell.initial_state(batch, like)

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(y, state after the last valid step); see :class:`rnncore.layers.base.RecurrentLayer`.

        Raises:
            InputError: x or lengths of the wrong rank, width, dtype or range.
            StateError: a state that does not fit the cell or the batch.
        """
        self.check_input(x)
        recorder = active_recorder()
        if recorder is not None:
            return recorder.record(self, x, state, lengths)
        valid = None
        if lengths is not None:
            lengths = check_lengths(lengths, x)
            valid = valid_steps(lengths, x.shape[1])
            # Zeroed once here: with NaN in the padding, masking afterwards keeps values finite but not weight gradients.
            x = x.masked_fill(~valid, 0.0)
        start = (
            self.initial_state(x.shape[0], x)
            if state is None
            else check_state(state, self.cell.state_sizes, x, type(self.cell).__name__)
        )
        if x.shape[1] == 0 or x.shape[0] == 0:
            return x.new_zeros(x.shape[0], x.shape[1], self.output_size), start
        given = Sequences(x, start, lengths, valid, self.reverse)
        dropping = self.weight_drop if self.training else 0.0
        # Compiled steps hold the weights that they were compiled with.
        kernel = select_kernel(self.cell, x, fused=self.fused, compiled=None if dropping else self.compiled)
        if dropping:
            return run_with_dropped_weights(kernel, self.cell, given, dropping)
        return kernel(self.cell, given)

    def extra_repr(self) -> str:
        """Direction, as shown in ``repr``."""
        return "reverse=True" if self.reverse else ""
