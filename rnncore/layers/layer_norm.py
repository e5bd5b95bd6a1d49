"""The layer-normalised LSTM with a gradient written by hand: an optimisation, never a second definition.

As in :mod:`rnncore.layers.peephole`, everything in the gradient that does not wait for a later step is computed for all steps
at once.  What is left of a step is one matrix product, two kernels of layer normalisation and six small ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnncore.cells import Cell, LSTMCell
from rnncore.layers.gate_gradients import gate_factors


def is_plain_layer_norm(cell: Cell) -> bool:
    """Whether :func:`run_layer_norm` computes exactly ``cell`` (a subclass may redefine anything)."""
    return (
        type(cell) is LSTMCell
        and cell.layer_norm
        and not (cell.peephole or cell.coupled or cell.projection)
        and (cell.gate_activation, cell.activation) == ("sigmoid", "tanh")
        and not torch.is_autocast_enabled(
            cell.weight_hh.device.type
        )  # which dtype each kernel takes is then torch's choice
    )


def run_layer_norm(
    cell: LSTMCell, x: Tensor, state: tuple[Tensor, ...], valid: Tensor | None, *, reverse: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """As :func:`rnncore.layers.loop.run_loop`, for cells that pass :func:`is_plain_layer_norm`; first derivatives only."""
    z = cell.project(x.transpose(0, 1))
    keep = None if valid is None else valid.transpose(0, 1)
    if reverse:
        z, keep = z.flip(0), None if keep is None else keep.flip(0)
    norm_hh, norm_c = cell.norm_hh, cell.norm_c
    assert norm_hh is not None and norm_c is not None
    norms = (norm_hh.weight, norm_c.weight, norm_c.bias)
    y, h, c = _LayerNorm.apply(z, *state, cell.weight_hh, *norms, keep, (norm_hh.eps, norm_c.eps))
    return (y.flip(0) if reverse else y).transpose(0, 1), (h, c)


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
        gates = z.new_empty(time, batch, 4, size)  # i, f, g, o after their activations
        cells, squashed, y = (
            z.new_empty(time, batch, size) for _ in range(3)
        )  # c_t before holding, tanh(LN(c_t)), h_t
        hs, cs = z.new_empty(time + 1, batch, size), z.new_empty(time + 1, batch, size)  # states before each step
        hs[0], cs[0] = h, c
        moments: list[tuple[Tensor, ...]] = []  # mean and 1 / deviation of the products, and of the cells
        transposed = weight.t()
        for t in range(time):
            g, last = gates[t], cs[t]
            product = torch.mm(hs[t], transposed, out=products[t])
            normal, *of_product = torch.native_layer_norm(product, (4 * size,), scale_h, None, eps[0])
            torch.add(z[t], normal, out=g.view(batch, 4 * size))
            g[:, :2].sigmoid_()
            candidate = g[:, 2].tanh_()
            output = g[:, 3].sigmoid_()
            new = torch.mul(g[:, 1], last, out=cells[t]).addcmul_(g[:, 0], candidate)
            normal, *of_cell = torch.native_layer_norm(new, (size,), scale_c, shift_c, eps[1])
            torch.mul(output, torch.tanh(normal, out=squashed[t]), out=y[t])
            moments.append((*of_product, *of_cell))
            if keep is None:
                hs[t + 1], cs[t + 1] = y[t], new
            else:
                torch.where(keep[t], y[t], hs[t], out=hs[t + 1])
                torch.where(keep[t], new, last, out=cs[t + 1])
        stacked = [torch.stack(column) for column in zip(*moments, strict=True)]
        weights = (weight, scale_h, scale_c, shift_c)
        kept = [] if keep is None else [keep]
        ctx.save_for_backward(products, gates, cells, squashed, hs, cs, *stacked, *weights, *kept)
        # Copies: the buffers are kept for the gradient, and a caller may write into what he is given.
        return y, hs[time].clone(), cs[time].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        products, gates, cells, squashed, hs, cs, *rest = ctx.saved_tensors
        mean_h, rate_h, mean_c, rate_c, weight, scale_h, scale_c, shift_c, *held = rest
        time, batch, size = cells.shape
        keep = held[0] if held else None
        to_ifg, to_o, to_normal, passed = gate_factors(gates, cs[:time], squashed, keep)
        dz, d_products, d_normals = torch.empty_like(gates), torch.empty_like(products), torch.empty_like(cells)
        dy = dy.contiguous()
        dh, dc = dh.clone(), dc.clone()
        only_input = [True, False, False]
        normalised = torch.ops.aten.native_layer_norm_backward
        for t in range(time - 1, -1, -1):
            step = dz[t]
            if keep is not None:
                waiting = dh * ~keep[t]
            dh += dy[t]
            torch.mul(dh, to_o[t], out=step[:, 3])
            d_normal = torch.mul(dh, to_normal[t], out=d_normals[t])
            dc += normalised(d_normal, cells[t], [size], mean_c[t], rate_c[t], scale_c, shift_c, only_input)[0]
            torch.mul(dc.unsqueeze(1), to_ifg[t], out=step[:, :3])
            dc.mul_(passed[t])
            flat = step.view(batch, 4 * size)
            d_product = d_products[t]
            d_product.copy_(
                normalised(flat, products[t], [4 * size], mean_h[t], rate_h[t], scale_h, None, only_input)[0]
            )
            dh = d_product @ weight if keep is None else torch.addmm(waiting, d_product, weight)
        _, d_scale_h, _ = normalised(
            *(dz.view(-1, 4 * size), products.view(-1, 4 * size), [4 * size], mean_h.view(-1, 1), rate_h.view(-1, 1)),
            *(scale_h, None, [False, True, False]),
        )
        _, d_scale_c, d_shift_c = normalised(
            *(d_normals.view(-1, size), cells.view(-1, size), [size], mean_c.view(-1, 1), rate_c.view(-1, 1)),
            *(scale_c, shift_c, [False, True, True]),
        )
        d_weight = d_products.flatten(0, 1).t() @ hs[:time].flatten(0, 1)
        return dz.view(time, batch, 4 * size), dh, dc, d_weight, d_scale_h, d_scale_c, d_shift_c, None, None
