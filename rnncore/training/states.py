"""Recurrent states as nested tuples of tensors: cut from their history, flattened, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rnncore.layers import State


def detached(state: State) -> State:
    """The same values without their history: what truncates back-propagation through time."""
    return _mapped(state, lambda tensor: tensor.detach())


def flattened(state: State) -> list[Tensor]:
    """All tensors of a state, in order."""
    tensors: list[Tensor] = []
    _mapped(state, lambda tensor: tensors.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return tensors


def unflattened(tensors: Sequence[Tensor], like: State) -> State:
    """A state built like ``like`` out of ``tensors``, the inverse of :func:`flattened`; ValueError unless as many."""
    source: Iterator[Tensor] = iter(tensors)
    if len(tensors) != len(flattened(like)):
        raise ValueError(f"{len(tensors)} tensors, expected {len(flattened(like))}")
    return _mapped(like, lambda _: next(source))


def chosen(rows: Tensor, when_true: State, when_false: State) -> State:
    """Row b of each state from ``when_true`` where ``rows[b]`` (bool [batch]) is True, else from ``when_false``."""
    others = iter(flattened(when_false))
    return _mapped(when_true, lambda tensor: torch.where(rows.unsqueeze(1), tensor, next(others)))


def _mapped(state: State, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, Tensor):
        return function(state)
    return tuple(_mapped(part, function) for part in state)
