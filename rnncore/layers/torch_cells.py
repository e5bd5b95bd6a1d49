"""``torch.nn.LSTMCell``, ``GRUCell`` and ``RNNCell`` as rnncore cells, so that a layer can run them along time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rnncore.cells import Cell, GRUCell, LSTMCell, RNNCell
from rnncore.runtime.errors import InputError

PARAMETERS = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}


def as_cell(cell: Any) -> Cell:
    """``cell`` itself, or the rnncore twin of a torch cell, which holds the very same parameters under the same names.

    Raises:
        InputError: it is neither, or a torch cell with behaviour of its own (a subclass, weight_norm, hooks).
    """
    if isinstance(cell, Cell):
        return cell
    if not isinstance(cell, nn.RNNCellBase):
        raise InputError(
            f"cell is a {type(cell).__name__}, expected a rnncore Cell (subclass rnncore.Cell) or a cell of torch.nn"
        )
    if type(cell) not in (nn.RNNCell, nn.GRUCell, nn.LSTMCell) or set(cell._parameters) != PARAMETERS:
        raise InputError(
            f"cell is a {type(cell).__name__} with behaviour of its own (a subclass, weight_norm or the like), which would "
            "be lost; write it as a rnncore.Cell"
        )
    if any((cell._forward_hooks, cell._forward_pre_hooks, cell._backward_hooks, cell._backward_pre_hooks)):
        raise InputError(f"cell is a {type(cell).__name__} with hooks, which would be lost; remove them first")
    with torch.device("meta"):  # no memory, and no random numbers drawn, for weights that are replaced at once
        twin = _twin(cell)
    for name, parameter in cell._parameters.items():
        setattr(twin, name, parameter)
    return twin.train(cell.training)


def _twin(cell: nn.RNNCellBase) -> Cell:
    sizes = (cell.input_size, cell.hidden_size)
    if isinstance(cell, nn.LSTMCell):
        return LSTMCell(*sizes, bias=cell.bias)
    if isinstance(cell, nn.GRUCell):
        return GRUCell(*sizes, bias=cell.bias)
    return RNNCell(*sizes, activation=str(cell.nonlinearity), bias=cell.bias)
