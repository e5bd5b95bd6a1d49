"""How far back a gradient reaches: the lesson of vanishing gradients, as numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncore.cells import Cell
from rnncore.runtime.errors import InputError


def gradient_norms(cell: Cell, x: Tensor, *, of: str = "state", seed: int = 0) -> Tensor:
    """Norm of the gradient of a loss at the last step, with respect to what each step before it started from.

    The loss of a row is its last output times a random direction.  ``norms[d]`` is the root mean square, over the batch, of
    the L2 norm of its gradient with respect to the state that step T - d starts from, all parts of the state together (or
    to the input of step T - d).  Where it falls by a constant factor a step, what was that long ago cannot be learnt; where
    it grows, gradients explode.

    Args:
        cell: any; left as it is.
        x: [batch, time, cell.input_size], time >= 1.
        of: "state" or "input".
        seed: of the direction.

    Returns:
        [time], the last step (d = 0) first, in the dtype of x.

    Raises:
        InputError: x has another rank or width or no steps, or ``of`` is something else.
    """
    if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != cell.input_size:
        raise InputError(f"x has shape {tuple(x.shape)}, expected [batch, time of at least 1, {cell.input_size}]")
    if of not in ("state", "input"):
        raise InputError(f"of is {of!r}, expected 'state' or 'input'")
    with torch.enable_grad():
        wanted, y = _run(cell, x.detach(), of)
        random = torch.Generator().manual_seed(seed)
        direction = torch.randn(y.shape, generator=random, dtype=torch.float64).to(y)
        gradients = torch.autograd.grad((y * direction).sum(), [part for step in wanted for part in step])
    squares = iter([gradient.detach().square().sum(1) for gradient in gradients])
    norms = [torch.stack([next(squares) for _ in step]).sum(0).mean().sqrt() for step in wanted]
    return torch.stack(norms[::-1])


def _run(cell: Cell, x: Tensor, of: str) -> tuple[list[tuple[Tensor, ...]], Tensor]:
    """(what to differentiate by at each step, last output [batch, output_size])."""
    inputs = [step.clone().requires_grad_() for step in x.unbind(1)]
    state = cell.initial_state(x.shape[0], x)
    wanted: list[tuple[Tensor, ...]] = []
    y = x
    for step in inputs:
        # A zero of its own is added to each state: by it the gradient is taken, whatever the state came from.
        zeros = tuple(torch.zeros_like(part, requires_grad=True) for part in state)
        y, *new = cell.step(cell.project(step), *(part + zero for part, zero in zip(state, zeros, strict=True)))
        state = tuple(new)
        wanted.append((step,) if of == "input" else zeros)
    return wanted, y
