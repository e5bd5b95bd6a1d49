"""The peephole LSTM with a gradient written by hand: an optimisation, never a second definition.

Autograd runs some forty kernels a step, each into fresh memory.  Here a step is one matrix product and some ten small kernels
into memory that is used again.  A property test holds every result and gradient to
:func:`rnncore.layers.loop.run_loop`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnncore.cells import Cell, LSTMCell
from rnncore.layers.kernels.gate_gradients import (
    STEPS_AT_ONCE,
    batch_first,
    blocks_backward,
    buffers,
    by_gate,
    time_first,
    write_factors,
)


def is_plain_peephole(cell: Cell) -> bool:
    """Whether :func:`run_peephole` computes exactly ``cell`` (a subclass may redefine anything)."""
    return (
        type(cell) is LSTMCell
        and cell.peephole is not None
        and not (cell.coupled or cell.layer_norm or cell.projection)
        and (cell.gate_activation, cell.activation) == ("sigmoid", "tanh")
    )


def run_peephole(
    cell: LSTMCell, x: Tensor, state: tuple[Tensor, ...], valid: Tensor | None, *, reverse: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """As :func:`rnncore.layers.loop.run_loop`, for cells that pass :func:`is_plain_peephole`; first derivatives only."""
    z, keep = time_first(cell, x, valid, reverse=reverse)
    # Under autocast z has a narrower dtype than the weights; the loop follows z, as a matrix product would.
    h, c = (s.to(z.dtype) for s in state)
    weights = (cell.weight_hh.to(z.dtype), cell.weight_peephole.to(z.dtype))  # type: ignore[union-attr]
    y, h, c = _Peephole.apply(z, h, c, *weights, keep, cell.peephole == "current")
    return batch_first(y, reverse=reverse), (h, c)


class _Peephole(torch.autograd.Function):
    """(z [time, batch, 4H], h, c [batch, H], weight_hh [4H, H], weight_peephole [3H], keep, current) -> (y, h, c).

    keep: boolean [time, batch, 1], where False the state is held, or None.  current: o sees the new memory.
    y is [time, batch, H], not masked: the caller has to, since a gradient that comes in at a held step goes on to h.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, h: Tensor, c: Tensor, weight: Tensor, peepholes: Tensor, keep: Tensor | None, current: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        time, batch, size = z.shape[0], z.shape[1], h.shape[1]
        # Nobody else holds z, and its gradient does not need its value: the gates of a step take its place, gate by gate.
        inputs = z.detach().view(time, batch, 4, size).transpose(1, 2)
        gates = z.detach().view(time, 4, batch, size)  # i, f, g, o after their activations
        one, more = (time, batch, size), (time + 1, batch, size)
        # Tanh of the new c; the states before each step; the new c of each step before holding.
        squashed, hs, cs, *held_back = buffers(z, one, more, more, *([] if keep is None else [one]))
        hs[0], cs[0] = h, c
        y, cells = (hs[1:], cs[1:]) if keep is None else (z.new_empty(one), held_back[0])
        p_if, p_o = peepholes[: 2 * size].view(2, 1, size), peepholes[2 * size :]
        weights, arguments = by_gate(weight), z.new_empty(4, batch, size)
        of_if, of_g, of_o = arguments[:2], arguments[2], arguments[3]
        steps = zip(
            *(inputs.unbind(0), gates[:, :2].unbind(0), *(gates[:, k].unbind(0) for k in range(4))),
            *(hs.unbind(0)[:-1], cs.unbind(0)[:-1], y.unbind(0), cells.unbind(0), squashed.unbind(0)),
            strict=True,
        )
        for t, (from_x, before, i, f, g, o, h, c, new_h, new_c, s) in enumerate(steps):
            torch.bmm(h.expand(4, batch, size), weights, out=arguments)
            arguments += from_x
            torch.sigmoid(of_if.addcmul_(p_if, c), out=before)
            torch.tanh(of_g, out=g)
            torch.mul(f, c, out=new_c).addcmul_(i, g)
            torch.sigmoid(of_o.addcmul_(p_o, new_c if current else c), out=o)
            torch.mul(o, torch.tanh(new_c, out=s), out=new_h)
            if keep is not None:
                torch.where(keep[t], new_h, h, out=hs[t + 1])
                torch.where(keep[t], new_c, c, out=cs[t + 1])
        ctx.save_for_backward(gates, cells, squashed, hs, cs, weight, peepholes, keep)
        ctx.current = current
        # Copies: the buffers are kept for the gradient, and a caller may write into what he is given.
        return (y.clone() if keep is None else y), hs[time].clone(), cs[time].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, squashed, hs, cs, weight, peepholes, keep = ctx.saved_tensors
        time, batch, size = cells.shape
        p_i, p_f, p_o = peepholes.view(3, size).unbind(0)
        dz = gates.new_empty(time, batch, 4, size)
        to_c = gates.new_empty(min(time, STEPS_AT_ONCE), batch, size)  # of one block
        d_weight, d_peepholes = torch.zeros_like(weight), torch.zeros_like(peepholes).view(3, size)
        dh, dc = dh.clone(), dc.clone()
        for block in blocks_backward(time):
            held = None if keep is None else ~keep[block]
            dz_block, before = dz[block], cs[block]
            to_squashed = to_c[: len(before)]
            back = write_factors(gates[block], before, squashed[block], held, dz_block, to_squashed)
            to_i, to_f, _, to_o = dz_block.unbind(2)
            back = torch.addcmul(back, to_i, p_i).addcmul_(to_f, p_f)
            if ctx.current:
                to_squashed.addcmul_(to_o, p_o)
            steps = zip(
                *(dy[block].unbind(0), dz_block.flatten(2).unbind(0), dz_block[:, :, :3].unbind(0), to_o.unbind(0)),
                *(to_squashed.unbind(0), back.unbind(0), [None] * len(back) if held is None else held.unbind(0)),
                strict=True,
            )
            for dy_t, flat, d_ifg, d_o, to_s, through, wait in reversed(list(steps)):
                dh += dy_t
                d_o *= dh
                dc.addcmul_(to_s, dh)
                d_ifg *= dc.unsqueeze(1)
                dc *= through
                if not ctx.current:
                    dc.addcmul_(d_o, p_o)
                # What is held passes through, and the step sees none of it.
                dh = flat @ weight if wait is None else torch.addmm(dh * wait, flat, weight)
            d_weight.addmm_(dz_block.view(-1, 4 * size).t(), hs[block].flatten(0, 1))
            after = cells[block] if ctx.current else before
            for total, change, seen in zip(d_peepholes, (to_i, to_f, to_o), (before, before, after), strict=True):
                total += (change * seen).sum((0, 1))
        return dz.view(time, batch, 4 * size), dh, dc, d_weight, d_peepholes.flatten(), None, None
