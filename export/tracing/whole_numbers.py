"""``int(n)`` of a size, as people write it around ``math.ceil(n / d)``, and ``len(x)`` are sizes themselves.

Python lets neither give anything but a number, so torch takes the size of the trace for it, and what is computed from it is
frozen.  While a module is traced, both names stand for others in the files of its classes, and of their packages: a type that
lets sizes through and otherwise is ``int``, and a function that asks a tensor for its shape.  Files that ask for the very
type (``type(n) is int``, ``dtype=int``) keep the real one.
"""

from __future__ import annotations

import linecache
import math
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import nn

from rnncore.export.tracing.counted_sizes import size_counted

_NOT_THEIRS = {"torch", "rnncore", "builtins", "numpy", "sympy"}
_ASKS_FOR_THE_TYPE = re.compile(r"\bis (not )?int\b|\bdtype ?= ?int\b|\.(to|type|astype|view)\(int\b")
_lock = threading.Lock()
_users: Counter[tuple[str, str]] = Counter()


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


def _length(value: Any, /) -> Any:
    """``len``, with sizes as they are."""
    return value.shape[0] if isinstance(value, torch.Tensor) and value.dim() else len(value)


_STAND_INS: dict[str, Any] = {"int": _Whole, "len": _length}


@contextmanager
def sizes_stay_sizes(module: nn.Module) -> Iterator[None]:
    """Let ``int()`` and ``len()`` keep sizes inside the block where the classes of ``module`` call them; other threads go on."""
    places = list(_places(module))
    _count(places, +1)
    try:
        yield
    finally:
        _count(places, -1)


def _places(module: nn.Module) -> Iterator[tuple[ModuleType, str]]:
    """Loaded files of the packages of the classes of ``module``, with each name that they call and have not made their own."""
    kinds = {
        kind for part in module.modules() for kind in type(part).__mro__
    }  # forward may be a base's, of another package
    packages = {kind.__module__.partition(".")[0] for kind in kinds} - _NOT_THEIRS - sys.stdlib_module_names
    for name, file in list(sys.modules.items()):
        if name.partition(".")[0] in packages and isinstance(file, ModuleType):
            path = file.__dict__.get("__file__")  # asked for as an attribute, a file that is loaded late is loaded
            called = _STAND_INS.keys() if path is None else _called(path)
            yield from ((file, own) for own in called if file.__dict__.get(own, _STAND_INS[own]) is _STAND_INS[own])


@lru_cache(maxsize=1 << 14)
def _called(path: str) -> tuple[str, ...]:
    try:
        text = "".join(linecache.getlines(path))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ()
    names = [name for name in _STAND_INS if re.search(rf"\b{name}\(", text)]
    return tuple(name for name in names if name != "int" or not _ASKS_FOR_THE_TYPE.search(text))


def _count(places: Sequence[tuple[ModuleType, str]], change: int) -> None:
    """Count who is inside; the first who enters puts a name in place, and the last who leaves takes it away."""
    with _lock:
        for file, name in places:
            key = str(file.__dict__.get("__name__")), name
            _users[key] += change
            if _users[key] > 0:
                file.__dict__[name] = _STAND_INS[name]
            else:
                file.__dict__.pop(name, None)
                del _users[key]
