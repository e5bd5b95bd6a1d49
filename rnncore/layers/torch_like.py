"""``RNN``, ``GRU`` and ``LSTM`` with the signatures of ``torch.nn`` and the call shape of rnncore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rnncore.cells import Cell, GRUCell, LSTMCell, RNNCell
from rnncore.cells.base import check_size
from rnncore.layers.base import RecurrentLayer
from rnncore.layers.bidirectional import Bidirectional
from rnncore.layers.recurrent import Recurrent
from rnncore.layers.stacked import Stacked
from rnncore.layers.torch_names import accept_torch_names, torch_to_stack
from rnncore.runtime.errors import InputError


class _TorchLike(Stacked):
    """``num_layers`` equal layers; loads the state dicts of the ``torch.nn`` module of the same name."""

    def __init__(
        self,
        make_cell: Callable[[int], Cell],
        input_size: int,
        num_layers: int,
        *,
        dropout: float,
        bidirectional: bool,
    ) -> None:
        check_size("num_layers", num_layers)
        layers: list[RecurrentLayer] = []
        width = input_size
        for _ in range(num_layers):
            if bidirectional:
                layers.append(Bidirectional(make_cell(width), make_cell(width)))
            else:
                layers.append(Recurrent(make_cell(width)))
            width = layers[-1].output_size
        super().__init__(layers, dropout=dropout)
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.torch_names = torch_to_stack(num_layers, bidirectional)
        self.register_load_state_dict_pre_hook(accept_torch_names)


def _check_batch_first(batch_first: bool) -> None:
    if not batch_first:
        raise InputError(
            "rnncore layers are batch first: [batch, time, features]; transpose the input, or keep the torch.nn "
            "module and use rnncore.convert, which preserves its layout"
        )


class RNN(_TorchLike):
    """Deep Elman network with the signature of ``torch.nn.RNN``, batch first; see :class:`rnncore.RNNCell`.

    Differs from torch in what it returns: ``(y, state)`` with one state tuple for each layer, not one stacked tensor.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        learn_initial_state: bool = False,
    ) -> None:
        def make_cell(width: int) -> Cell:
            return RNNCell(
                width, hidden_size, activation=nonlinearity, bias=bias, learn_initial_state=learn_initial_state
            )

        _check_batch_first(batch_first)
        super().__init__(make_cell, input_size, num_layers, dropout=dropout, bidirectional=bidirectional)
        self.to(device=device, dtype=dtype)


class GRU(_TorchLike):
    """Deep GRU with the signature of ``torch.nn.GRU``, batch first; ``variant`` goes to :class:`rnncore.GRUCell`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **variant: Any,
    ) -> None:
        def make_cell(width: int) -> Cell:
            return GRUCell(width, hidden_size, bias=bias, **variant)

        _check_batch_first(batch_first)
        super().__init__(make_cell, input_size, num_layers, dropout=dropout, bidirectional=bidirectional)
        self.to(device=device, dtype=dtype)


class LSTM(_TorchLike):
    """Deep LSTM with the signature of ``torch.nn.LSTM``, batch first; ``variant`` goes to :class:`rnncore.LSTMCell`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **variant: Any,
    ) -> None:
        if proj_size:  # torch's name for what LSTMCell calls projection
            if variant.get("projection") not in (None, proj_size):
                raise InputError(
                    f"proj_size is {proj_size} and projection is {variant['projection']}, which are the same: give one"
                )
            variant["projection"] = proj_size

        def make_cell(width: int) -> Cell:
            return LSTMCell(width, hidden_size, bias=bias, **variant)

        _check_batch_first(batch_first)
        super().__init__(make_cell, input_size, num_layers, dropout=dropout, bidirectional=bidirectional)
        self.to(device=device, dtype=dtype)
