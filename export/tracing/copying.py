"""A copy of a module, whatever hangs on it, and a module that is run without being changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from rnncore.export.tracing.model_arguments import take_apart

M = TypeVar("M", bound=nn.Module)
_TABLES = ("_parameters", "_buffers", "_modules")


def copied(module: M) -> M:
    """A deep copy of ``module``, compiled nowhere; of computed attributes, such as a pruned weight, with the value they have.

    torch refuses to copy a tensor that came out of a computation with gradients.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in list(part.__dict__.values()):
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if isinstance(tensor, Tensor) and not tensor.is_leaf:
                    memo[id(tensor)] = tensor.detach().clone()
    made = copy.deepcopy(module, memo)
    take_apart(made)
    return made


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Take back, at the end of the block, what ``forward`` did to attributes of ``module`` (not what it did in place).

    Weight drop, for one, sets a weight at every call; a trace would leave a symbol in its place.
    """
    kept = [(part, dict(part.__dict__)) for part in module.modules()]
    named = [(part, {name: dict(part.__dict__[name]) for name in _TABLES}) for part, _ in kept]
    try:
        yield
    finally:
        for part, attributes in kept:
            part.__dict__.clear()
            part.__dict__.update(attributes)
        for part, tables in named:
            for name, entries in tables.items():
                part.__dict__[name].clear()
                part.__dict__[name].update(entries)
