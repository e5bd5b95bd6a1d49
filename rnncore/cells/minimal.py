"""minGRU and minLSTM: gates that see the input only, so that all matrix products leave the loop."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.cells.base import Cell, check_size


class MinGRUCell(Cell):
    r"""minGRU (Feng et al. 2024, "Were RNNs all we needed?", arXiv:2410.01201, section 3.1.3, plain-space form).

    .. math::
        z_t = \sigma(W_z x_t + b_z), \quad \tilde h_t = W_h x_t + b_h, \quad h_t = (1 - z_t) * h_{t-1} + z_t * \tilde h_t

    Here z weighs the new value, as in the notes and unlike torch's GRU.

    Parameters: ``linear.weight`` [2H, I] and ``linear.bias`` [2H] in the order z, h; state: ``h`` [H].
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, bias: bool = True, learn_initial_state: bool = False
    ) -> None:
        check_size("hidden_size", hidden_size)
        super().__init__(input_size, hidden_size, {"h": hidden_size}, learn_initial_state=learn_initial_state)
        self.linear = nn.Linear(input_size, 2 * hidden_size, bias=bias)

    def project(self, x: Tensor) -> Tensor:
        """[1 - z, z * candidate], shape [..., 2H]."""
        gate, candidate = self.linear(x).split(self.output_size, -1)
        update = torch.sigmoid(gate)
        return torch.cat((1.0 - update, update * candidate), -1)

    def step(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """``h = keep * h + add``."""
        keep, add = z.split(self.output_size, 1)
        h = keep * h + add
        return h, h


class MinLSTMCell(MinGRUCell):
    r"""minLSTM (arXiv:2410.01201, section 3.2.4, length-independent scaling).

    .. math::
        f_t = \sigma(W_f x_t + b_f), \quad i_t = \sigma(W_i x_t + b_i), \quad \tilde h_t = W_h x_t + b_h, \\
        h_t = \frac{f_t}{f_t + i_t} * h_{t-1} + \frac{i_t}{f_t + i_t} * \tilde h_t

    Parameters: ``linear.weight`` [3H, I] and ``linear.bias`` [3H] in the order f, i, h; state: ``h`` [H].
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, bias: bool = True, learn_initial_state: bool = False
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias, learn_initial_state=learn_initial_state)
        self.linear = nn.Linear(input_size, 3 * hidden_size, bias=bias)

    def project(self, x: Tensor) -> Tensor:
        """[f / (f + i), i / (f + i) * candidate], shape [..., 2H]."""
        forget, update, candidate = cast(Tensor, self.linear(x)).split(self.output_size, -1)
        # f / (f + i) = sigmoid(log f - log i): no division by a sum that underflows to 0 for very negative gates.
        keep = torch.sigmoid(functional.logsigmoid(forget) - functional.logsigmoid(update))
        return torch.cat((keep, (1.0 - keep) * candidate), -1)
