"""Modules that change what they are given: ``state += ...``, where the state is an argument of ``forward``."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.nesting import named_tensors, with_tensors
from rnncore.runtime.error_boundary import pass_on_interruption


def sparing_inputs(model: nn.Module, example: Any) -> nn.Module:
    """``model``; or a copy that works on copies of its inputs, where it changes them in place.

    A file leaves what it is given alone, and whoever asks a module twice means the same question.
    """
    if "forward" in model.__dict__:
        return model
    made = copied(model).eval()
    try:
        with unchanged(made), torch.no_grad():
            bound = bind(made, example)
            for name, value in bound.arguments.items():
                bound.arguments[name] = _copies(value)
            given = [tensor for name, value in bound.arguments.items() for _, tensor in named_tensors(value, name)]
            before = [tensor._version for tensor in given]
            made(*bound.args, **bound.kwargs)
    except Exception as failure:  # no matter of this
        pass_on_interruption(failure)
        return model
    if [tensor._version for tensor in given] == before:
        return model
    kind: Any = type(made)

    @functools.wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return kind.forward(self, *map(_copies, args), **{name: _copies(value) for name, value in kwargs.items()})

    made.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return made


def _copies(value: Any) -> Any:
    copies: list[Tensor] = [tensor.clone() for _, tensor in named_tensors(value, "")]
    return with_tensors(value, iter(copies))
