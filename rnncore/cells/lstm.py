"""Long short-term memory, with its common variants."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.activations import activation_by_name
from rnncore.cells.base import GatedCell, check_size
from rnncore.runtime.errors import InputError

Peephole = Literal["current", "previous"]


class LSTMCell(GatedCell):
    r"""Long short-term memory (Hochreiter & Schmidhuber 1997), as in ``torch.nn.LSTMCell`` unless a variant is chosen.

    .. math::
        i &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi} + p_i * c_{t-1}) \\
        f &= \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf} + p_f * c_{t-1}) \\
        g &= \tanh(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) \\
        c_t &= f * c_{t-1} + i * g \\
        o &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho} + p_o * c') \\
        h_t &= W_{hr} (o * \tanh(c_t)), \quad y_t = h_t

    without the p terms and W_hr unless asked for.  The notes' names: :math:`\Gamma_u` = i, :math:`\Gamma_f` = f,
    :math:`\Gamma_o` = o, :math:`\tilde c` = g, a = h.

    Variants, in any combination:

    * ``peephole="current"``: c' = c_t, Gers & Schmidhuber 2000 and ONNX's P.  ``peephole="previous"``: c' = c_{t-1}, the
      notes (all three gates see the previous memory).
    * ``projection=n``: h has n features (Sak et al. 2014, torch's proj_size).
    * ``coupled=True``: no input gate, i = 1 - f (Greff et al. 2017, ONNX's input_forget).
    * ``layer_norm=True``: LN(W_i x) + LN(W_h h) + b, and tanh(LN(c_t)) (Ba et al. 2016, arXiv:1607.06450, eq. 20-22).

    Args:
        input_size: features of one input step.
        hidden_size: features of the memory ``c``.
        peephole: None, "current" or "previous".
        projection: features of ``h`` and of the output; None for hidden_size and no projection.
        coupled: tie the input gate to the forget gate.
        layer_norm: normalise the two projections and the memory.
        gate_activation: name of the function of i, f and o.
        activation: name of the function of g and of c_t on its way to h_t.
        bias: whether the two biases exist.
        learn_initial_state: make ``initial_h`` and ``initial_c`` parameters.

    Parameters, blocks in the order i, f, g, o (f, g, o when coupled): ``weight_ih`` [4H, I], ``weight_hh`` [4H, R],
    ``bias_ih`` [4H], ``bias_hh`` [4H], ``weight_peephole`` [3H] in the order i, f, o (f, o when coupled: [2H]),
    ``weight_hr`` [R, H]; R = projection or H.  States: ``h`` [R], ``c`` [H].  ONNX packs W as i, o, f, c and P as i, o, f.
    """

    weight_peephole: Tensor | None
    weight_hr: Tensor | None
    norm_ih: nn.LayerNorm | None
    norm_hh: nn.LayerNorm | None
    norm_c: nn.LayerNorm | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        peephole: Peephole | None = None,
        projection: int | None = None,
        coupled: bool = False,
        layer_norm: bool = False,
        gate_activation: str = "sigmoid",
        activation: str = "tanh",
        bias: bool = True,
        learn_initial_state: bool = False,
    ) -> None:
        if peephole not in (None, "current", "previous"):
            raise InputError(f"peephole is {peephole!r}, expected None, 'current' or 'previous'")
        check_size("hidden_size", hidden_size)
        if projection is not None and not (isinstance(projection, int) and 0 < projection < hidden_size):
            raise InputError(
                f"projection is {projection!r}, expected 1 to hidden_size - 1 = {hidden_size - 1}, or None"
            )
        gates = 3 if coupled else 4
        super().__init__(
            input_size,
            hidden_size,
            gates,
            {"h": projection or hidden_size, "c": hidden_size},
            output_size=projection,
            bias=bias,
            learn_initial_state=learn_initial_state,
        )
        self.peephole: Peephole | None = peephole
        self.projection = projection
        self.coupled = coupled
        self.layer_norm = layer_norm
        self.gate_activation = gate_activation
        self.activation = activation
        self._gate = activation_by_name(gate_activation)
        self._activate = activation_by_name(activation)
        peepholes = torch.empty((gates - 1) * hidden_size) if peephole else None
        self.register_parameter("weight_peephole", None if peepholes is None else nn.Parameter(peepholes))
        self.register_parameter("weight_hr", nn.Parameter(torch.empty(projection, hidden_size)) if projection else None)
        self.norm_ih = nn.LayerNorm(gates * hidden_size, bias=False) if layer_norm else None
        self.norm_hh = nn.LayerNorm(gates * hidden_size, bias=False) if layer_norm else None
        self.norm_c = nn.LayerNorm(hidden_size) if layer_norm else None
        self.reset_parameters()

    @property
    def adds_recurrent(self) -> bool:
        """True unless the product is normalised first."""
        return not self.layer_norm

    def project(self, x: Tensor) -> Tensor:
        """Input part of the gates, biases included."""
        if self.norm_ih is None:
            return functional.linear(x, self.weight_ih, self.summed_bias())
        norm = self.norm_ih  # which has no shift of its own: that of the gates is their bias
        product = functional.linear(x, self.weight_ih)
        return functional.layer_norm(product, norm.normalized_shape, norm.weight, self.summed_bias(), norm.eps)

    def step(self, z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step: z [batch, 4H] (3H when coupled), h [batch, R], c [batch, H]."""
        if self.norm_hh is None:
            gates = self.add_recurrent(z, h)
        else:
            gates = z + self.norm_hh(functional.linear(h, self.weight_hh))
        *before, candidate, output = gates.split(self.hidden_size, 1)
        if self.weight_peephole is not None:
            *p_before, p_output = self.weight_peephole.split(self.hidden_size)
            before = [torch.addcmul(gate, p, c) for gate, p in zip(before, p_before, strict=True)]
        forget = self._gate(before[-1])
        update = 1.0 - forget if self.coupled else self._gate(before[0])
        new_c = torch.addcmul(forget * c, update, self._activate(candidate))
        if self.weight_peephole is not None:
            output = torch.addcmul(output, p_output, new_c if self.peephole == "current" else c)
        visible = new_c if self.norm_c is None else self.norm_c(new_c)
        h = self._gate(output) * self._activate(visible)
        if self.weight_hr is not None:
            h = h.mm(self.weight_hr.t())
        return h, h, new_c
