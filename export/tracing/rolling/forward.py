"""``forward`` of a ``torch.autograd.Function``, which is written in one of two styles."""

from __future__ import annotations

from typing import Any

from torch.autograd import Function
from torch.autograd.function import FunctionCtx


def forward_of(cls: type[Function], *args: Any, **named: Any) -> Any:
    """What ``forward`` of ``cls`` gives, written in either style."""
    if cls.setup_context is not Function.setup_context:  # the newer style: forward takes no context
        return cls.forward(*args, **named)
    context: Any = FunctionCtx()
    context.needs_input_grad = (False,) * len(args)
    return cls.forward(context, *args, **named)
