"""What torch's cells compute, written out: inside torch they are one operation that hides the product with the input."""

from __future__ import annotations

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


CELLS: dict[str, Callable[..., Any]] = {
    "lstm_cell": _lstm,
    "gru_cell": _gru,
    "rnn_tanh_cell": _rnn(torch.tanh),
    "rnn_relu_cell": _rnn(torch.relu),
}
"""By the names of torch's functions."""
