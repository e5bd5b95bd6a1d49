"""The layer-normalised LSTM with a gradient written by hand: an optimisation, never a second definition.

As in :mod:`rnncore.layers.kernels.peephole`: a step is one matrix product, two kernels of layer normalisation and some ten
small ones.
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

_normalised = torch.ops.aten.native_layer_norm_backward.default


def is_plain_layer_norm(cell: Cell) -> bool:
    """Whether :func:`run_layer_norm` computes exactly ``cell`` (a subclass may redefine anything)."""
    return (
        type(cell) is LSTMCell
        and cell.layer_norm
        and not (cell.peephole or cell.coupled or cell.projection)
        and (cell.gate_activation, cell.activation) == ("sigmoid", "tanh")
        # Under autocast, which dtype each kernel takes is torch's choice.
        and not torch.is_autocast_enabled(cell.weight_hh.device.type)
    )


def run_layer_norm(
    cell: LSTMCell, x: Tensor, state: tuple[Tensor, ...], valid: Tensor | None, *, reverse: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """As :func:`rnncore.layers.loop.run_loop`, for cells that pass :func:`is_plain_layer_norm`; first derivatives only."""
    z, keep = time_first(cell, x, valid, reverse=reverse)
    norm_hh, norm_c = cell.norm_hh, cell.norm_c
    assert norm_hh is not None and norm_c is not None
    norms = (norm_hh.weight, norm_c.weight, norm_c.bias)
    y, h, c = _LayerNorm.apply(z, *state, cell.weight_hh, *norms, keep, (norm_hh.eps, norm_c.eps))
    return batch_first(y, reverse=reverse), (h, c)


class _LayerNorm(torch.autograd.Function):
    """(z [time, batch, 4H], h, c [batch, H], weight_hh [4H, H], scale_h [4H], scale_c, shift_c [H], keep, eps) -> (y, h, c).

    keep: boolean [time, batch, 1], where False the state is held, or None.  eps: of the two normalisations.
    y is [time, batch, H], not masked: the caller has to, since a gradient that comes in at a held step goes on to h.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        h: Tensor,
        c: Tensor,
        weight: Tensor,
        scale_h: Tensor,
        scale_c: Tensor,
        shift_c: Tensor,
        keep: Tensor | None,
        eps: tuple[float, float],
    ) -> tuple[Tensor, Tensor, Tensor]:
        time, batch, size = z.shape[0], z.shape[1], h.shape[1]
        # Nobody else holds z, and its gradient does not need its value: the gates of a step take its place, gate by gate.
        inputs = z.detach().view(time, batch, 4, size).transpose(1, 2)
        gates = z.detach().view(time, 4, batch, size)  # i, f, g, o after their activations
        one, more, wide = (time, batch, size), (time + 1, batch, size), (time, batch, 4 * size)
        # W_h h before its normalisation; tanh(LN(c)) of the new c; the states before each step; the new c before holding.
        products, squashed, hs, cs, *held_back = buffers(z, wide, one, more, more, *([] if keep is None else [one]))
        hs[0], cs[0] = h, c
        y, cells = (hs[1:], cs[1:]) if keep is None else (z.new_empty(one), held_back[0])
        moments: list[tuple[Tensor, ...]] = []  # of each step mean and 1 / deviation of the product, and of the cell
        weights, arguments = by_gate(weight), z.new_empty(4, batch, size)
        turned = arguments.transpose(0, 1)
        of_if, of_g, of_o = arguments[:2], arguments[2], arguments[3]
        steps = zip(
            *(products.unbind(0), inputs.unbind(0), gates[:, :2].unbind(0), *(gates[:, k].unbind(0) for k in range(4))),
            *(hs.unbind(0)[:-1], cs.unbind(0)[:-1], y.unbind(0), cells.unbind(0), squashed.unbind(0)),
            strict=True,
        )
        for t, (product, from_x, before, i, f, g, o, h, c, new_h, new_c, s) in enumerate(steps):
            torch.bmm(h.expand(4, batch, size), weights, out=arguments)
            product.view(batch, 4, size).copy_(turned)
            normal, *of_product = torch.native_layer_norm(product, (4 * size,), scale_h, None, eps[0])
            torch.add(from_x, normal.view(batch, 4, size).transpose(0, 1), out=arguments)
            torch.sigmoid(of_if, out=before)
            torch.tanh(of_g, out=g)
            torch.sigmoid(of_o, out=o)
            torch.mul(f, c, out=new_c).addcmul_(i, g)
            normal, *of_cell = torch.native_layer_norm(new_c, (size,), scale_c, shift_c, eps[1])
            torch.mul(o, torch.tanh(normal, out=s), out=new_h)
            moments.append((*of_product, *of_cell))
            if keep is not None:
                torch.where(keep[t], new_h, h, out=hs[t + 1])
                torch.where(keep[t], new_c, c, out=cs[t + 1])
        stacked = (torch.stack(moment) for moment in zip(*moments, strict=True))
        ctx.save_for_backward(
            products, gates, cells, squashed, hs, cs, weight, scale_h, scale_c, shift_c, *stacked, keep
        )
        # Copies: the buffers are kept for the gradient, and a caller may write into what he is given.
        return (y.clone() if keep is None else y), hs[time].clone(), cs[time].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        products, gates, cells, squashed, hs, cs, weight, scale_h, scale_c, shift_c, *moments, keep = ctx.saved_tensors
        time, batch, size = cells.shape
        dz, d_normals = gates.new_empty(time, batch, 4, size), torch.empty_like(cells)
        d_products = gates.new_empty(min(time, STEPS_AT_ONCE), batch, 4 * size)  # of one block
        dh, dc = dh.clone(), dc.clone()
        only_input = [True, False, False]
        d_weight = torch.zeros_like(weight)
        for block in blocks_backward(time):
            held = None if keep is None else ~keep[block]
            dz_block, d_normal_block = dz[block], d_normals[block]
            back = write_factors(gates[block], cs[block], squashed[block], held, dz_block, d_normal_block)
            steps = zip(
                *(dy[block].unbind(0), dz_block.flatten(2).unbind(0), dz_block[:, :, :3].unbind(0)),
                *(dz_block[:, :, 3].unbind(0), d_normal_block.unbind(0), back.unbind(0), cells[block].unbind(0)),
                *(products[block].unbind(0), d_products[: len(back)].unbind(0), *(m[block].unbind(0) for m in moments)),
                [None] * len(back) if held is None else held.unbind(0),
                strict=True,
            )
            for step in reversed(list(steps)):
                dy_t, flat, d_ifg, d_o, d_normal, through, new_c, product, d_product, m_h, r_h, m_c, r_c, wait = step
                dh += dy_t
                d_o *= dh
                d_normal *= dh
                dc += _normalised(d_normal, new_c, [size], m_c, r_c, scale_c, shift_c, only_input)[0]
                d_ifg *= dc.unsqueeze(1)
                dc *= through
                d_product.copy_(_normalised(flat, product, [4 * size], m_h, r_h, scale_h, None, only_input)[0])
                # What is held passes through, and the step sees none of it.
                dh = d_product @ weight if wait is None else torch.addmm(dh * wait, d_product, weight)
            d_weight.addmm_(d_products[: len(back)].flatten(0, 1).t(), hs[block].flatten(0, 1))
        mean_h, rate_h, mean_c, rate_c = (moment.flatten(0, 1) for moment in moments)
        _, d_scale_h, _ = _normalised(
            *(dz.view(-1, 4 * size), products.view(-1, 4 * size), [4 * size], mean_h, rate_h),
            *(scale_h, None, [False, True, False]),
        )
        _, d_scale_c, d_shift_c = _normalised(
            *(d_normals.view(-1, size), cells.reshape(-1, size), [size], mean_c, rate_c),
            *(scale_c, shift_c, [False, True, True]),
        )
        return dz.view(time, batch, 4 * size), dh, dc, d_weight, d_scale_h, d_scale_c, d_shift_c, None, None
