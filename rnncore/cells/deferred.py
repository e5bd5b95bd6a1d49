"""The gradient of a recurrent weight as one product over all steps instead of one product a step.

Where a step computes ``gates = z_t + h W^T``, the gradient of gates is that of z_t, so ``dW = sum_t dz_t^T h_{t-1}`` needs
nothing but what the loop has anyway: it leaves the loop as one matrix product.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

deferring: ContextVar[torch.nn.Module | None] = ContextVar("rnncore_deferring", default=None)
"""The cell in whose step the recurrent weight is a constant, because its gradient is taken outside; None for none."""


class DeferredGradient(torch.autograd.Function):
    """``apply(z, weight, hidden)`` is z; going back, ``weight`` gets what the steps owe it.

    z is [time, batch, rows], weight [rows, size]; ``hidden`` is a list that the loop fills with h before each step, [batch,
    size], in the order of z.
    """

    @staticmethod
    def forward(z: Tensor, weight: Tensor, hidden: list[Tensor]) -> Tensor:
        """z itself, as a tensor of its own."""
        return z.view_as(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, list[Tensor]], output: Tensor) -> None:
        """Keep the list, which is still empty."""
        ctx.hidden = inputs[2]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """dz and dW."""
        if not ctx.needs_input_grad[1]:
            return grad, None, None
        hidden = torch.cat(ctx.hidden).to(grad.dtype)  # under autocast the two may differ
        return grad, grad.flatten(0, 1).t() @ hidden, None
