"""Gradients of an LSTM's gates that do not wait for a later step, for all steps at once."""

from __future__ import annotations

import torch
from torch import Tensor

_sigmoid = torch.ops.aten.sigmoid_backward  # (grad, s) -> grad * s * (1 - s), one kernel
_tanh = torch.ops.aten.tanh_backward  # (grad, t) -> grad * (1 - t * t)


def gate_factors(
    gates: Tensor, before: Tensor, squashed: Tensor, keep: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a change of h_t or c_t does, where c_t = f c + i g and h_t = o s.

    Large intermediate results cost more than the arithmetic, so there are none.

    Args:
        gates: i, f, g, o after their activations, [time, batch, 4, H].
        before: c of the step before, [time, batch, H].
        squashed: s, a tanh of c_t, [time, batch, H].
        keep: boolean [time, batch, 1], where False the state is held, or None.

    Returns:
        Of c_t to the arguments of i, f and g, [time, batch, 3, H]; of h_t to the argument of o, and to that of s; of c_t to
        the c before, all [time, batch, H].
    """
    i, f, g, o = gates.unbind(2)
    to_ifg = torch.empty_like(gates[:, :, :3])
    _sigmoid.grad_input(g, i, grad_input=to_ifg[:, :, 0])
    _sigmoid.grad_input(before, f, grad_input=to_ifg[:, :, 1])
    _tanh.grad_input(i, g, grad_input=to_ifg[:, :, 2])
    to_o, to_s = _sigmoid(squashed, o), _tanh(o, squashed)
    if keep is None:
        return to_ifg, to_o, to_s, f
    return to_ifg.mul_(keep.unsqueeze(2)), to_o.mul_(keep), to_s.mul_(keep), torch.where(keep, f, 1.0)
