"""Weight drop: recurrent weights that are missing for a whole sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.func import functional_call
from torch.nn import functional

from rnncore.cells.base import Cell
from rnncore.runtime.errors import InputError

RECURRENT = "weight_hh"
"""The name of what multiplies the state of the step before, in every cell of rnncore and of torch that has one."""


def recurrent_weights(cell: Cell) -> dict[str, nn.Parameter]:
    """The recurrent weights of ``cell`` and of cells inside, by name."""
    return {name: weight for name, weight in cell.named_parameters() if name.rpartition(".")[2] == RECURRENT}


def check_weight_drop(cell: Cell, rate: float) -> None:
    """Raise InputError unless ``rate`` is 0 to below 1, and ``cell`` has weights to drop if it is not 0."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
        raise InputError(f"weight_drop is {rate!r}, expected a number of at least 0 and below 1")
    if rate and not recurrent_weights(cell):
        raise InputError(
            f"weight_drop is {rate}, but {type(cell).__name__} has no parameter {RECURRENT} to drop weights of: "
            "leave it out, or use dropout"
        )


def run_with_dropped_weights(kernel: Callable[..., Any], cell: Cell, given: Any, rate: float) -> Any:
    """``kernel(cell, given)`` with each recurrent weight zeroed by probability ``rate`` and the others scaled.

    A weight is missing at all steps of all sequences of the call, so that any kernel runs.  Source: Merity, Keskar and
    Socher 2018, "Regularizing and optimizing LSTM language models" (after DropConnect, Wan et al. 2013).
    """
    dropped = {f"cell.{name}": functional.dropout(weight, rate) for name, weight in recurrent_weights(cell).items()}
    return functional_call(_Run(kernel, cell), dropped, (given,))


class _Run(nn.Module):
    """A call of a kernel as a module, whose parameters ``functional_call`` can put others in place of."""

    def __init__(self, kernel: Callable[..., Any], cell: Cell) -> None:
        super().__init__()
        self.kernel = kernel
        self.cell = cell
        self.train(cell.training)

    def forward(self, given: Any) -> Any:
        return self.kernel(self.cell, given)
