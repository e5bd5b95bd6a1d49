"""What LSTMs with a gradient written by hand share: the gates' part of a step's gradient, and the order of the loop.

The memory of one step is used again for every step, so no intermediate result of all steps is held.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rnncore.cells import Cell

_sigmoid = torch.ops.aten.sigmoid_backward.grad_input  # (grad, s) -> grad * s * (1 - s)
_tanh = torch.ops.aten.tanh_backward.grad_input  # (grad, t) -> grad * (1 - t * t)


class GateGradient:
    """Memory for the gradients of one step, used again for every step; c_t = f c + i g and h_t = o s, s a tanh of c_t."""

    def __init__(self, like: Tensor) -> None:
        """like: of the gates of one step, [batch, 4, H]."""
        batch, _, size = like.shape
        self._to_ifg = like.new_empty(batch, 3, size)
        self._to_i, self._to_f, self._to_g = self._to_ifg.unbind(1)
        self._to_o, self._to_s = (like.new_empty(batch, size) for _ in range(2))
        self.squashed = like.new_empty(batch, size)  # for a caller who does not keep the gradient of s's argument

    def through_output(
        self, gates: tuple[Tensor, ...], squashed: Tensor, dh: Tensor, out: Tensor, out_squashed: Tensor
    ) -> Tensor:
        """Write the gradient of o's argument into ``out``, and that of s's argument into ``out_squashed``, which is returned."""
        o = gates[3]
        _sigmoid(squashed, o, grad_input=self._to_o)
        torch.mul(dh, self._to_o, out=out)
        _tanh(o, squashed, grad_input=self._to_s)
        return torch.mul(dh, self._to_s, out=out_squashed)

    def through_cell(self, gates: tuple[Tensor, ...], before: Tensor, dc: Tensor, out: Tensor) -> None:
        """Write the gradients of the arguments of i, f and g into ``out`` [batch, 3, H]; ``before`` is c of the step before."""
        i, f, g, _ = gates
        _sigmoid(g, i, grad_input=self._to_i)
        _sigmoid(before, f, grad_input=self._to_f)
        _tanh(i, g, grad_input=self._to_g)
        torch.mul(dc.unsqueeze(1), self._to_ifg, out=out)


def columns(gates: Tensor) -> list[tuple[Tensor, ...]]:
    """Each gate of [time, batch, 4, H] at each step, [batch, H]: views, made at once because that is faster."""
    return [gate.unbind(0) for gate in gates.unbind(2)]


def time_first(cell: Cell, x: Tensor, valid: Tensor | None, *, reverse: bool) -> tuple[Tensor, Tensor | None]:
    """Projection of x [batch, time, input] and its ``valid`` steps, both [time, batch, ...] in the order of the loop."""
    z = cell.project(x.transpose(0, 1)).contiguous()
    keep = None if valid is None else valid.transpose(0, 1)
    if reverse:
        z, keep = z.flip(0), None if keep is None else keep.flip(0)
    return z, keep


def batch_first(y: Tensor, *, reverse: bool) -> Tensor:
    """y [time, batch, size] in the order of the loop as [batch, time, size] in the order of time."""
    return (y.flip(0) if reverse else y).transpose(0, 1)
