"""The peephole LSTM with a gradient written by hand: an optimisation, never a second definition.

Autograd runs some forty small kernels a step.  Here everything in the gradient that does not wait for a later step is
computed for all steps at once, and what is left of a step is one matrix product and eight small kernels.  A property test
holds every result and gradient to :func:`rnncore.layers.loop.run_loop`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnncore.cells import Cell, LSTMCell
from rnncore.layers.gate_gradients import gate_factors


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
    z = cell.project(x.transpose(0, 1))
    keep = None if valid is None else valid.transpose(0, 1)
    if reverse:
        z, keep = z.flip(0), None if keep is None else keep.flip(0)
    # Under autocast z has a narrower dtype than the weights; the loop follows z, as a matrix product would.
    h, c = (s.to(z.dtype) for s in state)
    weights = (cell.weight_hh.to(z.dtype), cell.weight_peephole.to(z.dtype))  # type: ignore[union-attr]
    y, h, c = _Peephole.apply(z, h, c, *weights, keep, cell.peephole == "current")
    return (y.flip(0) if reverse else y).transpose(0, 1), (h, c)


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
        gates = z.new_empty(time, batch, 4, size)  # i, f, g, o after their activations
        cells, squashed, y = (z.new_empty(time, batch, size) for _ in range(3))  # c_t before holding, its tanh, h_t
        hs, cs = z.new_empty(time + 1, batch, size), z.new_empty(time + 1, batch, size)  # states before each step
        hs[0], cs[0] = h, c
        p_if, p_o = peepholes[: 2 * size].view(2, size), peepholes[2 * size :]
        transposed = weight.t()
        for t in range(time):
            g = gates[t]
            torch.addmm(z[t], hs[t], transposed, out=g.view(batch, 4 * size))
            before, output, last = g[:, :2], g[:, 3], cs[t]
            before.addcmul_(p_if, last.unsqueeze(1)).sigmoid_()
            candidate = g[:, 2].tanh_()
            new = torch.mul(g[:, 1], last, out=cells[t]).addcmul_(g[:, 0], candidate)
            output.addcmul_(p_o, new if current else last).sigmoid_()
            torch.mul(output, torch.tanh(new, out=squashed[t]), out=y[t])
            if keep is None:
                hs[t + 1], cs[t + 1] = y[t], new
            else:
                torch.where(keep[t], y[t], hs[t], out=hs[t + 1])
                torch.where(keep[t], new, last, out=cs[t + 1])
        ctx.save_for_backward(gates, cells, squashed, hs, cs, weight, peepholes, *([] if keep is None else [keep]))
        ctx.current = current
        # Copies: the buffers are kept for the gradient, and a caller may write into what he is given.
        return y, hs[time].clone(), cs[time].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, squashed, hs, cs, weight, peepholes, *held = ctx.saved_tensors
        time, batch, size = cells.shape
        keep = held[0] if held else None
        p_i, p_f, p_o = peepholes.view(3, size)
        to_ifg, to_o, to_c, passed = gate_factors(gates, cs[:time], squashed, keep)
        dz = torch.empty_like(gates)
        dy = dy.contiguous()
        dh, dc = dh.clone(), dc.clone()
        for t in range(time - 1, -1, -1):
            step = dz[t]
            if keep is not None:
                waiting = dh * ~keep[t]
            dh += dy[t]
            output = torch.mul(dh, to_o[t], out=step[:, 3])
            dc.addcmul_(dh, to_c[t])
            if ctx.current:
                dc.addcmul_(output, p_o)
            torch.mul(dc.unsqueeze(1), to_ifg[t], out=step[:, :3])
            dc.mul_(passed[t]).addcmul_(step[:, 0], p_i).addcmul_(step[:, 1], p_f)
            if not ctx.current:
                dc.addcmul_(output, p_o)
            flat = step.view(batch, 4 * size)
            dh = flat @ weight if keep is None else torch.addmm(waiting, flat, weight)
        before, new = cs[:time], cells if ctx.current else cs[:time]
        d_peepholes = torch.cat([(dz[:, :, k] * seen).sum((0, 1)) for k, seen in ((0, before), (1, before), (3, new))])
        dz = dz.view(time, batch, 4 * size)
        d_weight = dz.flatten(0, 1).t() @ hs[:time].flatten(0, 1)
        return dz, dh, dc, d_weight, d_peepholes, None, None
