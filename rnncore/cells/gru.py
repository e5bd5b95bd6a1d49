"""Gated recurrent units: torch's, the notes' full one and the notes' simplified one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from rnncore.activations import activation_by_name
from rnncore.cells.base import GatedCell
from rnncore.runtime.errors import InputError

Reset = Literal["after", "before"]


class GRUCell(GatedCell):
    r"""Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), in three placements of the reset gate.

    .. math::
        r &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n &= \tanh(W_{in} x_t + b_{in} + r * (W_{hn} h_{t-1} + b_{hn})) && \text{reset="after"} \\
        n &= \tanh(W_{in} x_t + b_{in} + W_{hn} (r * h_{t-1}) + b_{hn}) && \text{reset="before"} \\
        n &= \tanh(W_{in} x_t + b_{in} + W_{hn} h_{t-1} + b_{hn})       && \text{reset=None} \\
        h_t &= (1 - z) * n + z * h_{t-1}, \quad y_t = h_t

    ``reset="after"`` is torch's and cuDNN's (ONNX ``linear_before_reset=1``); ``"before"`` is the notes' full GRU
    (ONNX's default); ``None`` is the notes' simplified GRU, which has no r and two gates.

    The notes write :math:`c^{<t>} = \Gamma_u * \tilde c^{<t>} + (1 - \Gamma_u) * c^{<t-1>}`.  So the notes' c is torch's
    h, their :math:`\tilde c` is n, their :math:`\Gamma_r` is r, and their :math:`\Gamma_u` is **1 - z**: negate the
    weights and biases of the z block to go from one to the other (:func:`rnncore.repack` does).

    Args:
        input_size: features of one input step.
        hidden_size: features of the state ``h`` and of the output.
        reset: "after", "before" or None, as above.
        gate_activation: name of the function of r and z.
        activation: name of the function of n.
        bias: whether the two biases exist.
        learn_initial_state: make ``initial_h`` a parameter.

    Parameters, blocks in the order r, z, n (z, n with reset=None): ``weight_ih`` [3H, I], ``weight_hh`` [3H, H],
    ``bias_ih`` [3H], ``bias_hh`` [3H]; state: ``h`` [H].
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        reset: Reset | None = "after",
        gate_activation: str = "sigmoid",
        activation: str = "tanh",
        bias: bool = True,
        learn_initial_state: bool = False,
    ) -> None:
        if reset not in ("after", "before", None):
            raise InputError(f"reset is {reset!r}, expected 'after' (torch), 'before' or None (no reset gate)")
        super().__init__(
            input_size,
            hidden_size,
            2 if reset is None else 3,
            {"h": hidden_size},
            bias=bias,
            learn_initial_state=learn_initial_state,
        )
        self.reset: Reset | None = reset
        self.gate_activation = gate_activation
        self.activation = activation
        self._gate = activation_by_name(gate_activation)
        self._activate = activation_by_name(activation)
        self.reset_parameters()

    def project(self, x: Tensor) -> Tensor:
        """W_i x + b_i + b_h, without the part of b_h that sits inside the reset (reset="after")."""
        return functional.linear(x, self.weight_ih, self.summed_bias())

    def summed_bias(self) -> Tensor | None:
        """What can be added before the loop: ``bias_ih + bias_hh``, with reset="after" not for the block n of bias_hh."""
        if self.reset != "after" or self.bias_ih is None or self.bias_hh is None:
            return super().summed_bias()
        return self.bias_ih + functional.pad(self.bias_hh[: -self.hidden_size], (0, self.hidden_size))

    def step(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """One step: z [batch, 3H] (2H with reset=None), h [batch, H]."""
        update, candidate = self._step_without(z, h) if self.reset is None else self._step_with(z, h)
        h = candidate + update * (h - candidate)
        return h, h

    def _step_with(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        size = self.hidden_size
        z_gates, z_candidate = z.split((2 * size, size), 1)
        w_gates, w_candidate = self.weight_hh.split((2 * size, size), 0)
        reset, update = self._gate(torch.addmm(z_gates, h, w_gates.t())).split(size, 1)
        if self.reset == "before":
            return update, self._activate(torch.addmm(z_candidate, reset * h, w_candidate.t()))
        bias = None if self.bias_hh is None else self.bias_hh[-size:]
        return update, self._activate(z_candidate + reset * functional.linear(h, w_candidate, bias))

    def _step_without(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        update, candidate = torch.addmm(z, h, self.weight_hh.t()).split(self.hidden_size, 1)
        return self._gate(update), self._activate(candidate)
