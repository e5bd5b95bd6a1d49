"""What states begin with: zeros, or what every row of the example begins with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rnncore.runtime.format.axes import BATCH


class StateInput(Protocol):
    """An input of the example: its tensor, and which of its axes are free."""

    @property
    def name(self) -> str:
        """Of the input."""

    @property
    def value(self) -> Tensor:
        """What the example has there."""

    @property
    def axes(self) -> Sequence[object]:
        """Names of free axes, None for others."""


def start_of(state: StateInput) -> Tensor | None:
    """One row of a state, its batch axis of 1 kept, if all rows of the example begin alike and not with zeros.

    Rows that differ, or one alone, do not tell what the next sequence begins with: None, as for zeros.  So a memory of
    ``torch.eye(n).expand(batch, n, n)`` is what the file starts from, and ``torch.randn(batch, n)`` is not.
    """
    if BATCH not in state.axes or any(axis not in (None, BATCH) for axis in state.axes):
        return None
    batch, value = list(state.axes).index(BATCH), state.value.detach()
    if value.shape[batch] < 2 or value.is_complex():
        return None
    first = value.narrow(batch, 0, 1)
    if not bool(first.any()) or not bool(torch.isfinite(first).all()):
        return None
    return first.clone() if torch.equal(value, first.expand_as(value)) else None


def begun(state: StateInput, like: Tensor) -> Tensor:
    """What a file starts ``state`` from, for as many rows as ``like`` has."""
    start = start_of(state)
    return torch.zeros_like(like) if start is None else start.to(like).expand_as(like).clone()


def starts_of(states: Iterable[StateInput]) -> dict[str, np.ndarray]:
    """What those states that do not start from zeros start from, [size] each, by name."""
    found = {state.name: start_of(state) for state in states}
    return {name: start.cpu().numpy().ravel() for name, start in found.items() if start is not None}


def remarks_on(states: Iterable[StateInput]) -> list[str]:
    """What to tell of states that the example does not start from zeros, one line each."""
    given = [state for state in states if bool(state.value.any())]
    return [
        f"state '{state.name}' starts from what every row of the example starts with"
        if start_of(state) is not None
        else f"state '{state.name}' starts from zeros: what the example starts with differs from row to row, or has one row"
        for state in given
    ]
