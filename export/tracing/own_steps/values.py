"""Tensors in whatever a step carries: tuples, dicts, and objects such as caches, which are no data that is named by paths."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_DEEPEST = 8


def tensors_in(value: Any, depth: int = _DEEPEST, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor in ``value``, each once, in an order of its own; not those of modules."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, nn.Module | type) or depth < 0:
        return
    if isinstance(value, Tensor):
        seen.add(id(value))
        yield value
        return
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, tuple | list):
        parts = list(value)
    elif hasattr(value, "__dict__") and not callable(value):
        parts = list(vars(value).values())
    else:
        return
    seen.add(id(value))
    for part in parts:
        yield from tensors_in(part, depth - 1, seen)


def with_others(value: Any, other: Callable[[int, Tensor], Tensor]) -> Any:
    """A deep copy of ``value`` in which ``other(number, tensor)`` stands for each tensor, in the order of :func:`tensors_in`.

    Modules and what cannot be copied stay the same object.
    """
    memo: dict[int, Any] = {id(tensor): other(number, tensor) for number, tensor in enumerate(tensors_in(value))}
    return copy.deepcopy(value, memo)


def zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros of the dtype and device of ``like``."""
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


class Nothing(Tensor):
    """The number 0, of which every entry is 0 again: a state of any structure before the first step.

    parts: so many values it is unpacked to.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    parts = 1

    @classmethod
    def of(cls, like: Tensor, parts: int) -> Nothing:
        """In the dtype of ``like``, if that is a float."""
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        made = torch.zeros((), dtype=dtype).as_subclass(cls)
        made.parts = parts
        return made

    def __getitem__(self, place: Any) -> Nothing:
        return self

    def __iter__(self) -> Iterator[Nothing]:
        return iter([self] * self.parts)
