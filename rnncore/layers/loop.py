"""The one loop over time in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncore.cells import Cell, LSTMCell, RNNCell
from rnncore.cells.deferred import DeferredGradient, deferring


def run_loop(
    cell: Cell, x: Tensor, state: tuple[Tensor, ...], valid: Tensor | None, *, reverse: bool, defer: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run ``cell`` along time.

    Args:
        cell: what to run.
        x: [batch, time, input_size] with time >= 1.
        state: one [batch, size] tensor for each of the cell's states.
        valid: boolean [batch, time, 1]; where False the state is held.  None when every step is valid.
        reverse: go from the last step to the first.
        defer: take the gradient of the recurrent weight out of the loop where the cell allows (faster; no second
            derivatives).

    Returns:
        (y [batch, time, output_size], not masked; state after the last step taken).
    """
    # Time first, so that each z_t is one contiguous block and the loop does no strided reads.
    z = cell.project(x.transpose(0, 1)).contiguous()
    hidden: list[Tensor] | None = None
    if defer and torch.is_grad_enabled() and type(cell) in (LSTMCell, RNNCell) and cell.adds_recurrent:
        hidden = []
        z = DeferredGradient.apply(z, cell.weight_hh, hidden)
    if hidden is None:
        return _steps(cell, z, state, valid, None, reverse=reverse)
    token = deferring.set(cell)
    try:
        return _steps(cell, z, state, valid, hidden, reverse=reverse)
    finally:
        deferring.reset(token)


def _as_wide(keep: Tensor, state: Tensor) -> Tensor:
    """keep [batch, 1] with as many axes as ``state``."""
    return keep if state.dim() == 2 else keep.reshape(-1, *[1] * (state.dim() - 1))


def _steps(
    cell: Cell,
    z: Tensor,
    state: tuple[Tensor, ...],
    valid: Tensor | None,
    hidden: list[Tensor] | None,
    *,
    reverse: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    z_steps = z.unbind(0)
    keeps = valid.transpose(0, 1).unbind(0) if valid is not None else None
    order = range(len(z_steps))
    outputs = []
    for t in reversed(order) if reverse else order:
        if hidden is not None:
            hidden.append(state[0].detach())
        y, *new_state = cell.step(z_steps[t], *state)
        if keeps is not None:
            new_state = [
                torch.where(_as_wide(keeps[t], new), new, old) for new, old in zip(new_state, state, strict=True)
            ]
        state = tuple(new_state)
        outputs.append(y)
    if reverse:
        outputs.reverse()
        if hidden is not None:
            hidden.reverse()
    return torch.stack(outputs, 1), state
