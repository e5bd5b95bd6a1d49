"""The layer-normalised LSTM with a gradient written by hand: an optimisation, never a second definition.

As in :mod:`rnncore.layers.peephole`: a step is one matrix product, two kernels of layer normalisation and some ten small ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnncore.cells import Cell, LSTMCell
from rnncore.layers.gate_gradients import GateGradient, batch_first, columns, time_first

_normalised = torch.ops.aten.native_layer_norm_backward


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
    y is [time, batch, H], not masked.
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
        products = z.new_empty(time, batch, 4 * size)  # W_h h before its normalisation
        # Nobody else holds z, and its gradient does not need its value: the gates take its place.
        gates = z.detach().view(time, batch, 4, size)  # i, f, g, o after their activations
        hs, cs = z.new_empty(time + 1, batch, size), z.new_empty(time + 1, batch, size)  # states before each step
        hs[0], cs[0] = h, c
        squashed = z.new_empty(time, batch, size)  # tanh(LN(c)) of the new c
        # The new h and c of each step, before holding.
        y, cells = (hs[1:], cs[1:]) if keep is None else (z.new_empty(time, batch, size) for _ in range(2))
        moments: list[Tensor] = []  # of each step mean and 1 / deviation of the product, and of the cell
        transposed = weight.t()
        steps = zip(
            *(products.unbind(0), gates.view(time, batch, -1).unbind(0), gates[:, :, :2].unbind(0), *columns(gates)),
            *(hs.unbind(0)[:-1], cs.unbind(0)[:-1], y.unbind(0), cells.unbind(0), squashed.unbind(0)),
            strict=True,
        )
        for t, (product, flat, before, i, f, g, o, h, c, new_h, new_c, s) in enumerate(steps):
            normal, *of_product = torch.native_layer_norm(
                torch.mm(h, transposed, out=product), (4 * size,), scale_h, None, eps[0]
            )
            flat += normal
            before.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(f, c, out=new_c).addcmul_(i, g)
            normal, *of_cell = torch.native_layer_norm(new_c, (size,), scale_c, shift_c, eps[1])
            torch.mul(o, torch.tanh(normal, out=s), out=new_h)
            moments += (*of_product, *of_cell)
            if keep is not None:
                torch.where(keep[t], new_h, h, out=hs[t + 1])
                torch.where(keep[t], new_c, c, out=cs[t + 1])
        weights = (weight, scale_h, scale_c, shift_c)
        kept = [] if keep is None else [keep]
        ctx.save_for_backward(products, gates, cells, squashed, hs, cs, *weights, *moments, *kept)
        # Copies: the buffers are kept for the gradient, and a caller may write into what he is given.
        return (y.clone() if keep is None else y), hs[time].clone(), cs[time].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        products, gates, cells, squashed, hs, cs, weight, scale_h, scale_c, shift_c, *rest = ctx.saved_tensors
        time, batch, size = cells.shape
        mean_h, rate_h, mean_c, rate_c = (rest[k : 4 * time : 4] for k in range(4))
        keep = rest[4 * time] if len(rest) > 4 * time else None
        dz, d_products, d_normals = torch.empty_like(gates), torch.empty_like(products), torch.empty_like(cells)
        gradient = GateGradient(gates[0])
        dh, dc = dh.clone(), dc.clone()
        only_input = [True, False, False]
        steps = list(
            zip(
                *(zip(*columns(gates), strict=True), squashed.unbind(0), cells.unbind(0), cs.unbind(0)[:-1]),
                *(products.unbind(0), mean_h, rate_h, mean_c, rate_c, dy.unbind(0), dz.view(time, batch, -1).unbind(0)),
                *(dz[:, :, :3].unbind(0), dz[:, :, 3].unbind(0), d_products.unbind(0), d_normals.unbind(0)),
                strict=True,
            )
        )
        for t in range(time - 1, -1, -1):
            own, s, new_c, c, product, m_h, r_h, m_c, r_c, dy_t, flat, d_ifg, d_o, d_product, d_normal = steps[t]
            if keep is None:
                dh += dy_t
            else:  # what is held passes through, and the step sees none of it
                waiting_h, dh = dh * ~keep[t], (dh + dy_t).mul_(keep[t])
            gradient.through_output(own, s, dh, out=d_o, out_squashed=d_normal)
            dc += _normalised(d_normal, new_c, [size], m_c, r_c, scale_c, shift_c, only_input)[0]
            if keep is not None:
                waiting_c = dc * ~keep[t]
                dc *= keep[t]
            gradient.through_cell(own, c, dc, out=d_ifg)
            dc *= own[1]
            d_product.copy_(_normalised(flat, product, [4 * size], m_h, r_h, scale_h, None, only_input)[0])
            if keep is None:
                dh = d_product @ weight
            else:
                dh = torch.addmm(waiting_h, d_product, weight)
                dc += waiting_c
        _, d_scale_h, _ = _normalised(
            *(dz.view(-1, 4 * size), products.view(-1, 4 * size), [4 * size], torch.cat(mean_h), torch.cat(rate_h)),
            *(scale_h, None, [False, True, False]),
        )
        _, d_scale_c, d_shift_c = _normalised(
            *(d_normals.view(-1, size), cells.reshape(-1, size), [size], torch.cat(mean_c), torch.cat(rate_c)),
            *(scale_c, shift_c, [False, True, True]),
        )
        d_weight = d_products.flatten(0, 1).t() @ hs[:time].flatten(0, 1)
        return dz.view(time, batch, 4 * size), dh, dc, d_weight, d_scale_h, d_scale_c, d_shift_c, None, None
