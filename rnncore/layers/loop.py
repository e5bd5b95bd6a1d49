"""The one loop over time in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncore.cells.base import Cell


def run_loop(
    cell: Cell, x: Tensor, state: tuple[Tensor, ...], valid: Tensor | None, *, reverse: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run ``cell`` along time.

    Args:
        cell: what to run.
        x: [batch, time, input_size] with time >= 1.
        state: one [batch, size] tensor for each of the cell's states.
        valid: boolean [batch, time, 1]; where False the state is held.  None when every step is valid.
        reverse: go from the last step to the first.

    Returns:
        (y [batch, time, output_size], not masked; state after the last step taken).
    """
    # Time first, so that each z_t is one contiguous block and the loop does no strided reads.
    z_steps = cell.project(x.transpose(0, 1)).contiguous().unbind(0)
    keeps = valid.transpose(0, 1).unbind(0) if valid is not None else None
    order = range(len(z_steps))
    outputs = []
    for t in reversed(order) if reverse else order:
        y, *new_state = cell.step(z_steps[t], *state)
        if keeps is not None:
            new_state = [torch.where(keeps[t], new, old) for new, old in zip(new_state, state, strict=True)]
        state = tuple(new_state)
        outputs.append(y)
    if reverse:
        outputs.reverse()
    return torch.stack(outputs, 1), state
