"""What LSTMs with a gradient written by hand share: the order of the loop, its memory, and what is known before it runs.

With c_t = f c + i g and h_t = o s, s a tanh of c_t, the gradient of each gate's argument is a factor that the forward
pass has determined, times the gradient of c_t or of h_t.  The factors of :data:`STEPS_AT_ONCE` steps are made together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rnncore.cells import Cell

_sigmoid = torch.ops.aten.sigmoid_backward.grad_input  # (grad, s) -> grad * s * (1 - s)
_tanh = torch.ops.aten.tanh_backward.grad_input  # (grad, t) -> grad * (1 - t * t)

STEPS_AT_ONCE = 16
"""Enough for few kernels, and little enough for the caches: of 8, 16 and 32 the fastest at 32 rows of 256 units."""


def blocks_backward(time: int) -> Iterator[slice]:
    """The steps in blocks of at most :data:`STEPS_AT_ONCE`, the last block first."""
    return (slice(t, min(t + STEPS_AT_ONCE, time)) for t in reversed(range(0, time, STEPS_AT_ONCE)))


def write_factors(
    gates: Tensor, before: Tensor, squashed: Tensor, held: Tensor | None, out: Tensor, out_squashed: Tensor
) -> Tensor:
    """Write the factors of the gates into ``out`` [steps, batch, 4, H] and that of the argument of s into ``out_squashed``.

    gates: i, f, g, o, [steps, 4, batch, H].  before: c before each step, squashed: s, both [steps, batch, H].
    held: boolean [steps, batch, 1], where nothing moves, or None.

    Returns what the gradient of c is multiplied with on its way to the step before, [steps, batch, H].
    """
    i, f, g, o = gates.unbind(1)
    to_i, to_f, to_g, to_o = out.unbind(2)
    _sigmoid(g, i, grad_input=to_i)
    _sigmoid(before, f, grad_input=to_f)
    _tanh(i, g, grad_input=to_g)
    _sigmoid(squashed, o, grad_input=to_o)
    _tanh(o, squashed, grad_input=out_squashed)
    if held is None:
        return f
    out.masked_fill_(held.unsqueeze(2), 0.0)
    out_squashed.masked_fill_(held, 0.0)
    return f.masked_fill(held, 1.0)


def by_gate(weight: Tensor) -> Tensor:
    """Recurrent weights [4H, H] as a matrix for each gate, [4, H, H], that h is multiplied with from the left."""
    return weight.view(4, -1, weight.shape[1]).transpose(1, 2).contiguous()


def buffers(like: Tensor, *shapes: Sequence[int]) -> list[Tensor]:
    """New memory for each shape, from one allocation: large ones cost a system call, and a fault for each page."""
    sizes = [math.prod(shape) for shape in shapes]
    return [part.view(*shape) for part, shape in zip(like.new_empty(sum(sizes)).split(sizes), shapes, strict=True)]


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
