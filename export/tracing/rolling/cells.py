"""What torch's cells and scans compute, written out: inside torch each is one operation that hides what a loop needs.

Of a cell that is the product with the input, of a scan (``logcumsumexp``, ``cumprod``) that it carries a value from step to
step; as loops they are exact at every size, which ONNX has no operator for, and stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


def _lstm(
    x: Tensor, hx: tuple[Tensor, Tensor], w: Tensor, u: Tensor, b: Tensor | None = None, d: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    h, c = hx
    i, f, g, o = (linear(x, w, b) + linear(h, u, d)).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(x: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Tensor | None = None, d: Tensor | None = None) -> Tensor:
    r, z, n = linear(x, w, b).chunk(3, 1)
    recurrent_r, recurrent_z, recurrent_n = linear(h, u, d).chunk(3, 1)
    z = torch.sigmoid(z + recurrent_z)
    n = torch.tanh(n + torch.sigmoid(r + recurrent_r) * recurrent_n)
    return n + z * (h - n)


def _rnn(activation: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def cell(x: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Tensor | None = None, d: Tensor | None = None) -> Tensor:
        return activation(linear(x, w, b) + linear(h, u, d))

    return cell


def _cumprod(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    x = x if dtype is None else x.to(dtype)
    value, found = torch.ones_like(x.select(dim, 0)), []
    for entry in x.unbind(dim):
        value = value * entry
        found.append(value)
    return torch.stack(found, dim)


def _logcumsumexp(x: Tensor, dim: int) -> Tensor:
    least = torch.finfo(x.dtype).min  # stands for -inf, the log of nothing: a state starts from a finite value
    value, found = torch.full_like(x.select(dim, 0), least), []
    for entry in x.unbind(dim):
        top, low = torch.maximum(value, entry), torch.minimum(value, entry)
        value = top + torch.log1p(torch.exp(torch.where(top == low, 0.0, low - top)))
        found.append(torch.where(value < least / 2, -math.inf, value))
    return torch.stack(found, dim)


CELLS: dict[str, Callable[..., Any]] = {
    "lstm_cell": _lstm,
    "gru_cell": _gru,
    "rnn_tanh_cell": _rnn(torch.tanh),
    "rnn_relu_cell": _rnn(torch.relu),
    "logcumsumexp": _logcumsumexp,
    "cumprod": _cumprod,
}
"""By the names of torch's functions."""
