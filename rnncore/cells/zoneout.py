"""``Zoneout``: a cell some of whose states stay as they are, at random."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rnncore.cells.base import Cell
from rnncore.runtime.errors import InputError, raise_all


class Zoneout(Cell):
    r"""Another cell, each feature of whose states is held for a step by a probability, while training.

    .. math:: s_t = m_t \odot s_{t-1} + (1 - m_t) \odot \tilde s_t, \qquad m_t \sim \mathrm{Bernoulli}(p)

    :math:`\tilde s_t` is what the cell makes of the state.  Otherwise the expectation stands in place of the mask,
    :math:`s_t = p \, s_{t-1} + (1 - p) \, \tilde s_t`, so that a file has one more sum in its loop.  Where a cell gives out
    a state as it is, such as h of a GRU or an LSTM, it gives out what became of it.  Source: Krueger et al. 2017, "Zoneout:
    regularizing RNNs by randomly preserving hidden activations".

    torch's fused kernels cannot do this, so the layer is trained step by step.

    Parameters: ``cell.*``.

    Args:
        cell: any cell.
        rate: the probability, 0 to below 1, of every state or by name, such as ``{"h": 0.05, "c": 0.5}``; 0 for those that
            are left out.

    Raises:
        InputError: lists every rate that is out of range, and every name that the cell has no state for.
    """

    def __init__(self, cell: Cell, rate: float | Mapping[str, float]) -> None:
        if not isinstance(cell, Cell):
            raise InputError(f"cell is a {type(cell).__name__}, expected a rnncore Cell (subclass rnncore.Cell)")
        super().__init__(cell.input_size, cell.output_size, cell.state_sizes)
        self.cell = cell
        self.rates = _rates(cell, rate)

    def project(self, x: Tensor) -> Tensor:
        """As the cell's."""
        return self.cell.project(x)

    def step(self, z: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """(y, every state as it became); see the class."""
        y, *made = self.cell.step(z, *state)
        became = [self._held(rate, old, new) for rate, old, new in zip(self.rates.values(), state, made, strict=True)]
        given = [mixed for new, mixed in zip(made, became, strict=True) if y is new]
        return (given[0] if given else y, *became)

    def _held(self, rate: float, old: Tensor, new: Tensor) -> Tensor:
        if not rate:
            return new
        if not self.training:
            return new + rate * (old - new)
        return torch.where(torch.rand_like(new) < rate, old, new)

    def initial_state(self, batch: int | torch.SymInt, like: Tensor) -> tuple[Tensor, ...]:
        """That of the cell."""
        return self.cell.initial_state(batch, like)

    def extra_repr(self) -> str:
        """The rates, as shown in ``repr``."""
        return ", ".join(f"{name}={rate}" for name, rate in self.rates.items())


def _rates(cell: Cell, rate: float | Mapping[str, float]) -> dict[str, float]:
    names = list(cell.state_sizes)
    given = dict(rate) if isinstance(rate, Mapping) else dict.fromkeys(names, rate)
    problems = [
        f"there is no state {name!r}, expected one of: {', '.join(names)}" for name in given.keys() - set(names)
    ]
    problems += [
        f"the zoneout rate of {name} is {one!r}, expected a number of at least 0 and below 1"
        for name, one in given.items()
        if isinstance(one, bool) or not isinstance(one, int | float) or not 0.0 <= one < 1.0
    ]
    raise_all(problems)
    return {name: float(given.get(name, 0.0)) for name in names}
