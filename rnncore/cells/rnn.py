"""The basic (Elman) recurrent cell."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from rnncore.activations import activation_by_name
from rnncore.cells.base import GatedCell


class RNNCell(GatedCell):
    r"""Basic recurrent cell, as in ``torch.nn.RNNCell``.

    .. math:: h_t = g(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}), \quad y_t = h_t

    The notes write :math:`a^{<t>} = g(W_a [a^{<t-1>}, x^{<t>}] + b_a)`: one matrix W_a = [W_hh | W_ih], one bias.

    Args:
        input_size: features of one input step.
        hidden_size: features of the state ``h`` and of the output.
        activation: name of g, "tanh" or "relu" in torch; any of :data:`rnncore.activations.ACTIVATIONS`.
        bias: whether the two biases exist.
        learn_initial_state: make ``initial_h`` a parameter.

    Parameters: ``weight_ih`` [H, I], ``weight_hh`` [H, H], ``bias_ih`` [H], ``bias_hh`` [H]; state: ``h`` [H].
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        activation: str = "tanh",
        bias: bool = True,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(
            input_size, hidden_size, 1, {"h": hidden_size}, bias=bias, learn_initial_state=learn_initial_state
        )
        self.activation = activation
        self._activate = activation_by_name(activation)
        self.reset_parameters()

    @property
    def adds_recurrent(self) -> bool:
        """Always."""
        return True

    def project(self, x: Tensor) -> Tensor:
        """W_ih x + b_ih + b_hh."""
        return functional.linear(x, self.weight_ih, self.summed_bias())

    def step(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """One step, all [batch, H]."""
        h = self._activate(self.add_recurrent(z, h))
        return h, h
