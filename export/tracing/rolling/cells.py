"""What torch's cells and scans compute, written out: inside torch each is one operation that hides what a loop needs.

Of a cell that is the product with the input, of a scan (``logcumsumexp``, ``cumprod``, ``cummax``) that it carries a value from
step to step; as loops they are exact at every size, which ONNX has no operator for, and stream.
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


_BITS_OF_FLOATS = 24


def _extreme(larger: bool) -> Callable[..., Any]:
    """``cummax`` or ``cummin``: [values, the places where they stand], of equal values the last place."""

    sign = 1 if larger else -1

    def scan(x: Tensor, dim: int) -> Any:
        floats = x.is_floating_point()
        first, limits = x.select(dim, 0), (torch.finfo if floats else torch.iinfo)(x.dtype)
        # A state starts from a finite value, and is held in floats, which have no largest number of 32 or 64 bits.
        least, most = limits.min, limits.max
        if not floats and limits.bits >= _BITS_OF_FLOATS:
            most = 1 << (limits.bits - 2)
            least = max(least, -most)
        value = torch.full_like(first, least if larger else most)
        seen, place = torch.zeros_like(first), torch.zeros_like(first, dtype=torch.int64)
        values, places = [], []
        for t, entry in enumerate(x.unbind(dim)):
            newer = entry >= value if larger else entry <= value
            if floats:
                seen = torch.where(torch.isinf(entry) & (sign * entry < 0), seen, torch.ones_like(seen))
                newer = newer | torch.isnan(entry) | (seen == 0)
            place = torch.where(newer, torch.zeros_like(place) + t, place)
            value = torch.maximum(value, entry) if larger else torch.minimum(value, entry)
            values.append(torch.where(seen == 0, -sign * math.inf, value) if floats else value)
            places.append(place)
        found = torch.stack(values, dim), torch.stack(places, dim)
        return getattr(torch.return_types, "cummax" if larger else "cummin")(found)

    return scan


CELLS: dict[str, Callable[..., Any]] = {
    "lstm_cell": _lstm,
    "gru_cell": _gru,
    "rnn_tanh_cell": _rnn(torch.tanh),
    "rnn_relu_cell": _rnn(torch.relu),
    "logcumsumexp": _logcumsumexp,
    "cumprod": _cumprod,
    "cummax": _extreme(larger=True),
    "cummin": _extreme(larger=False),
}
"""By the names of torch's functions."""
