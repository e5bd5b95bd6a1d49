"""``type(x) == torch.Tensor`` in a module's own code: while torch traces, values are of classes that torch derives from Tensor.

Code that asks for the very type would go another way in the trace than it goes in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from rnncore.export.tracing.source_lines import is_users

_TRACED = (FakeTensor, FunctionalTensor)
_NAME = "type"


class _Classes(type):
    """What makes ``isinstance(kind, type)`` and ``issubclass(kind, type)`` answer as ever."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, type)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, type)


class _PlainType(type, metaclass=_Classes):
    """``type``, which takes what torch traces for the tensor or parameter that it stands for."""

    def __new__(mcs, *args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs:
            return type(*args, **kwargs)
        if isinstance(args[0], _TRACED):
            return nn.Parameter if isinstance(args[0], nn.Parameter) else torch.Tensor
        return type(args[0])


@contextmanager
def plain_types(module: nn.Module) -> Iterator[None]:
    """Inside, ``type(x)`` in the files of the user's modules says ``torch.Tensor`` of a traced value as well."""
    changed = []
    for space in _spaces(module):
        if _NAME not in space:  # a file with a `type` of its own means that
            space[_NAME] = _PlainType
            changed.append(space)
    try:
        yield
    finally:
        for space in changed:
            space.pop(_NAME, None)


def _spaces(module: nn.Module) -> list[dict[str, Any]]:
    """The global names of the user's code in ``module``, each file's once."""
    found: dict[int, dict[str, Any]] = {}
    for kind in {base for part in module.modules() for base in type(part).__mro__}:
        for function in vars(kind).values():
            if isinstance(function, FunctionType) and is_users(function.__code__.co_filename):
                found[id(function.__globals__)] = function.__globals__
    return list(found.values())
