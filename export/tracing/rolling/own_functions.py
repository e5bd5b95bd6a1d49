"""``torch.autograd.Function``s that people wrote: a recording needs what they compute, and no gradient.

torch refuses them while a function is being transformed, unless they are written in a newer style that few are.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.autograd import Function

from rnncore.export.tracing.rolling.forward import forward_of
from rnncore.export.tracing.rolling.scans import as_loop, find_scan

_recording: ContextVar[bool] = ContextVar("rnncore_forward_only", default=False)
_lock = threading.Lock()
_apply = Function.__dict__["apply"]
# Before 2.14 torch's apply is Python: it asks whether a function is being transformed, and calls its base's, also for a
# name given long ago: scan = Scan.apply.  Since then all of it is C, and such a name cannot be followed: torch refuses it.
_IN_PYTHON = isinstance(_apply, classmethod)
_Replaced: Any = Function.__mro__[1] if _IN_PYTHON else Function
_transforming = torch._C._are_functorch_transforms_active
_applies = _apply.__func__.__code__ if _IN_PYTHON else None
_users = 0


@contextmanager
def forward_only() -> Iterator[None]:
    """Within the block, and in its thread only, ``apply`` of such a function is its ``forward``."""
    global _users
    token = _recording.set(True)
    with _lock:
        _users += 1
        _Replaced.apply = classmethod(_forward)
        torch._C._are_functorch_transforms_active = _is_transforming
    try:
        yield
    finally:
        _recording.reset(token)
        with _lock:
            _users -= 1
            if not _users:
                if _IN_PYTHON:
                    del _Replaced.apply
                else:
                    _Replaced.apply = _apply
                torch._C._are_functorch_transforms_active = _transforming


def _is_transforming() -> bool:
    """What torch asks before it calls a function; while one is recorded, the answer to that question is no."""
    return _transforming() and not (_recording.get() and sys._getframe(1).f_code is _applies)


def _forward(cls: type[Function], *args: Any, **named: Any) -> Any:
    if not _recording.get():
        return super(_Replaced, cls).apply(*args, **named) if _IN_PYTHON else _apply.__get__(None, cls)(*args, **named)
    scan = find_scan(cls, args) if not named else None
    if scan is not None:
        return as_loop(scan, args)
    return forward_of(cls, *args, **named)
