"""``Bidirectional``: one layer that reads forward, one that reads backward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnncore.cells.base import Cell
from rnncore.layers.base import RecurrentLayer, State
from rnncore.layers.recurrent import Recurrent
from rnncore.runtime.errors import InputError, StateError


class Bidirectional(RecurrentLayer):
    """Two independent layers over the same input, outputs concatenated as [forward, backward].

    The cells may be of different kinds and sizes.  Its state is ``(forward state, backward state)``.  With ``lengths``
    the backward layer starts at each row's own last step.

    Args:
        forward_cell: reads from the first step on.
        backward_cell: reads from the last valid step on.
        weight_drop: of both, see :class:`rnncore.Recurrent`.
    """

    def __init__(
        self,
        forward_cell: Cell | nn.RNNCellBase,
        backward_cell: Cell | nn.RNNCellBase,
        *,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if forward_cell is backward_cell:
            raise InputError("both directions share one cell object; pass two cells (copy.deepcopy makes an equal one)")
        self.forward_layer = Recurrent(forward_cell, weight_drop=weight_drop)
        self.backward_layer = Recurrent(backward_cell, reverse=True, weight_drop=weight_drop)
        ahead, back = self.forward_layer, self.backward_layer
        if ahead.input_size != back.input_size:
            raise InputError(
                f"forward cell takes {ahead.input_size} features, backward cell {back.input_size}; both read the same input"
            )
        self.input_size = ahead.input_size
        self.output_size = ahead.output_size + back.output_size

    def initial_state(self, batch: int | torch.SymInt, like: Tensor) -> State:
        """(forward, backward) initial states."""
        return self.forward_layer.initial_state(batch, like), self.backward_layer.initial_state(batch, like)

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """(y [batch, time, both output sizes], (forward state, backward state))."""
        if state is not None and (not isinstance(state, tuple | list) or len(state) != 2):
            raise StateError("Bidirectional: state must be the pair (forward state, backward state)")
        ahead, back = (None, None) if state is None else state
        y_ahead, ahead = self.forward_layer(x, ahead, lengths)
        y_back, back = self.backward_layer(x, back, lengths)
        return torch.cat((y_ahead, y_back), 2), (ahead, back)
