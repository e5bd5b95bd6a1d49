"""What torch's exporter makes anew at every call, kept between calls of ours."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_REGISTRATION = "torch.onnx._internal.exporter._registration"


@contextmanager
def operators_read_once() -> Iterator[None]:
    """Inside it torch takes the translations of its operators from a table that this process made once.

    torch parses the Python source of five hundred functions at every export, which takes it more than a second.  A torch that
    makes its table in another way is left alone.
    """
    try:
        registry: Any = import_module(_REGISTRATION).ONNXRegistry
        original = registry.__dict__["from_torchlib"]
    except (ImportError, AttributeError, KeyError):
        yield
        return
    if not isinstance(original, classmethod):  # an export inside an export, or in another thread
        yield
        return
    registry.from_torchlib = staticmethod(functools.partial(_kept, original.__get__(None, registry)))
    try:
        yield
    finally:
        registry.from_torchlib = original


def _kept(make: Any, *args: Any, **options: Any) -> Any:
    """A table of the caller's own: it may add to its lists."""
    made = _made(make, args, tuple(options.items()))
    own = copy.copy(made)
    own.functions = {target: list(found) for target, found in made.functions.items()}
    return own


@functools.cache
def _made(make: Any, args: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> Any:
    return make(*args, **dict(options))
