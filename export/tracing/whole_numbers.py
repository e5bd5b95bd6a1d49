"""``int(n)`` of a size, as people write it around ``math.ceil(n / d)``, is the size itself.

Python lets no ``int()`` give anything but a number, so torch takes the size of the trace for it, and what is computed from it
is frozen.  While a module is traced, ``int`` in the files of its classes, and of their packages, is a type that lets sizes
through and otherwise is ``int``.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from rnncore.export.tracing.counted_sizes import size_counted

_NOT_THEIRS = {"torch", "rnncore", "builtins", "numpy", "sympy"}
_lock = threading.Lock()
_users: Counter[str] = Counter()


class _Kind(type):
    """Whatever is said of ``int`` is said of a type of this kind."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        counted = size_counted(args[0]) if len(args) == 1 and not kwargs else None
        if counted is not None:
            return counted
        if len(args) == 1 and not kwargs and isinstance(args[0], torch.SymInt):
            return args[0]
        if len(args) == 1 and not kwargs and isinstance(args[0], torch.SymFloat):
            return math.trunc(args[0])
        return int(*args, **kwargs)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, int)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, int)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is int

    def __hash__(cls) -> int:
        return hash(int)


class _Whole(int, metaclass=_Kind):
    """``int``, and sizes as they are."""


@contextmanager
def sizes_stay_sizes(module: nn.Module) -> Iterator[None]:
    """Let ``int()`` keep sizes inside the block, wherever the classes of ``module`` call it; other threads see no difference."""
    files = _files_of(module)
    _count(files, +1)
    try:
        yield
    finally:
        _count(files, -1)


def _files_of(module: nn.Module) -> list[ModuleType]:
    """The loaded files of the packages that the classes of ``module`` come from, those that have no ``int`` of their own."""
    packages = {type(part).__module__.partition(".")[0] for part in module.modules()} - _NOT_THEIRS
    loaded = list(sys.modules.items())
    files = [file for name, file in loaded if name.partition(".")[0] in packages and isinstance(file, ModuleType)]
    return [file for file in files if file.__dict__.get("int", _Whole) is _Whole]


def _count(files: list[ModuleType], change: int) -> None:
    """Count who is inside; the first who enters puts the type in place, and the last who leaves takes it away."""
    with _lock:
        for file in files:
            name = file.__name__
            _users[name] += change
            if _users[name] > 0:
                file.__dict__["int"] = _Whole
            else:
                file.__dict__.pop("int", None)
                del _users[name]
