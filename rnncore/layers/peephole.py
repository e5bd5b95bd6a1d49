"""The peephole LSTM with a gradient written by hand: an optimisation, never a second definition.

Autograd runs some forty kernels a step, each into fresh memory.  Here a step is one matrix product and some fifteen small
kernels into memory that is used again.  A property test holds every result and gradient to
:func:`rnncore.layers.loop.run_loop`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnncore.cells import Cell, LSTMCell
from rnncore.layers.gate_gradients import GateGradient, batch_first, columns, time_first


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
    y is [time, batch, H], not masked.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, h: Tensor, c: Tensor, weight: Tensor, peepholes: Tensor, keep: Tensor | None, current: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        time, batch, size = z.shape[0], z.shape[1], h.shape[1]
        # Nobody else holds z, and its gradient does not need its value: the gates take its place.
        gates = z.detach().view(time, batch, 4, size)  # i, f, g, o after their activations
        hs, cs = z.new_empty(time + 1, batch, size), z.new_empty(time + 1, batch, size)  # states before each step
        hs[0], cs[0] = h, c
        squashed = z.new_empty(time, batch, size)  # tanh of the new c
        # The new h and c of each step, before holding.
        y, cells = (hs[1:], cs[1:]) if keep is None else (z.new_empty(time, batch, size) for _ in range(2))
        p_if, p_o = peepholes[: 2 * size].view(2, size), peepholes[2 * size :]
        transposed = weight.t()
        steps = zip(
            *(gates.view(time, batch, -1).unbind(0), gates[:, :, :2].unbind(0), *columns(gates)),
            *(hs.unbind(0)[:-1], cs.unbind(0)[:-1], y.unbind(0), cells.unbind(0), squashed.unbind(0)),
            strict=True,
        )
        for t, (flat, before, i, f, g, o, h, c, new_h, new_c, s) in enumerate(steps):
            flat.addmm_(h, transposed)
            before.addcmul_(p_if, c.unsqueeze(1)).sigmoid_()
            g.tanh_()
            torch.mul(f, c, out=new_c).addcmul_(i, g)
            o.addcmul_(p_o, new_c if current else c).sigmoid_()
            torch.mul(o, torch.tanh(new_c, out=s), out=new_h)
            if keep is not None:
                torch.where(keep[t], new_h, h, out=hs[t + 1])
                torch.where(keep[t], new_c, c, out=cs[t + 1])
        ctx.save_for_backward(gates, cells, squashed, hs, cs, weight, peepholes, *([] if keep is None else [keep]))
        ctx.current = current
        # Copies: the buffers are kept for the gradient, and a caller may write into what he is given.
        return (y.clone() if keep is None else y), hs[time].clone(), cs[time].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, squashed, hs, cs, weight, peepholes, *held = ctx.saved_tensors
        time, batch, size = cells.shape
        keep = held[0] if held else None
        p_i, p_f, p_o = peepholes.view(3, size).unbind(0)
        dz = torch.empty_like(gates)
        gradient = GateGradient(gates[0])
        d_peepholes = [torch.zeros_like(dc) for _ in range(3)]
        dh, dc = dh.clone(), dc.clone()
        steps = list(
            zip(
                *(zip(*columns(gates), strict=True), squashed.unbind(0), cells.unbind(0), cs.unbind(0)[:-1]),
                *(dy.unbind(0), dz.view(time, batch, -1).unbind(0), dz[:, :, :3].unbind(0), *columns(dz)),
                strict=True,
            )
        )
        for t in range(time - 1, -1, -1):
            own, s, new_c, c, dy_t, flat, d_ifg, d_i, d_f, _, d_o = steps[t]
            if keep is None:
                dh += dy_t
            else:  # what is held passes through, and the step sees none of it
                waiting_h, dh = dh * ~keep[t], (dh + dy_t).mul_(keep[t])
            dc += gradient.through_output(own, s, dh, out=d_o, out_squashed=gradient.squashed)
            if ctx.current:
                dc.addcmul_(d_o, p_o)
            if keep is not None:
                waiting_c = dc * ~keep[t]
                dc *= keep[t]
            gradient.through_cell(own, c, dc, out=d_ifg)
            dc.mul_(own[1]).addcmul_(d_i, p_i).addcmul_(d_f, p_f)
            if not ctx.current:
                dc.addcmul_(d_o, p_o)
            for total, change, seen in zip(
                d_peepholes, (d_i, d_f, d_o), (c, c, new_c if ctx.current else c), strict=True
            ):
                total.addcmul_(change, seen)
            if keep is None:
                dh = flat @ weight
            else:
                dh = torch.addmm(waiting_h, flat, weight)
                dc += waiting_c
        dz = dz.view(time, batch, 4 * size)
        d_weight = dz.flatten(0, 1).t() @ hs[:time].flatten(0, 1)
        return dz, dh, dc, d_weight, torch.cat([total.sum(0) for total in d_peepholes]), None, None
