"""``torch.autograd.Function``s that people wrote: a recording needs what they compute, and no gradient.

torch refuses them while a function is being transformed, unless they are written in a newer style that few are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch.autograd import Function
from torch.autograd.function import FunctionCtx

_recording: ContextVar[bool] = ContextVar("rnncore_forward_only", default=False)
_lock = threading.Lock()
_plain = Function.__dict__["apply"]
_users = 0


@contextmanager
def forward_only() -> Iterator[None]:
    """Within the block, and in its thread only, ``apply`` of such a function is its ``forward``."""
    global _users
    token = _recording.set(True)
    with _lock:
        _users += 1
        Function.apply = classmethod(_forward)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        _recording.reset(token)
        with _lock:
            _users -= 1
            if not _users:
                Function.apply = _plain  # type: ignore[method-assign]


def _forward(cls: type[Function], *args: Any, **named: Any) -> Any:
    if not _recording.get():
        return _plain.__get__(None, cls)(*args, **named)
    if cls.setup_context is not Function.setup_context:  # the newer style: forward takes no context
        return cls.forward(*args, **named)
    context: Any = FunctionCtx()
    context.needs_input_grad = (False,) * len(args)
    return cls.forward(context, *args, **named)
