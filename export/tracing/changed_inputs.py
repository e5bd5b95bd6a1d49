"""Modules that change what they are given: ``state += ...``, ``states[i] = ...``, of an argument of ``forward``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.nesting import named_tensors, with_tensors
from rnncore.runtime.error_boundary import pass_on_interruption


def sparing_inputs(model: nn.Module, example: Any) -> nn.Module:
    """``model``; or a copy that works on copies of its inputs, where it changes them in place.

    A file leaves what it is given alone, and whoever asks a module twice means the same question.  What is zeros in the example,
    within a list or dict, and changed there and not given back, is a state: the copy gives back what becomes of it, behind all
    else.  (An argument by itself that is written to may be features that are scaled.)
    """
    if "forward" in model.__dict__:
        return model
    made = copied(model).eval()
    try:
        with unchanged(made), torch.no_grad():
            bound = _with_copies(bind(made, example))
            given = _tensors_of(bound)
            begun = {name: bool(value.any()) for name, value in given.items()}
            before = {name: value._version for name, value in given.items()}
            result = made(*bound.args, **bound.kwargs)
    except Exception as failure:  # no matter of this
        pass_on_interruption(failure)
        return model
    after = _tensors_of(bound)
    changed = [
        name
        for name, value in given.items()
        if value._version != before[name] or (len(after) == len(given) and after.get(name) is not value)
    ]
    if not changed:
        return model
    lost = [
        name
        for name in changed
        if name in after
        and name not in bound.arguments
        and not begun[name]
        and not _gives(result, after[name], written=after[name] is given[name])
    ]
    kind: Any = type(made)
    signature = inspect.signature(made.forward)

    @functools.wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        own = _with_copies(signature.bind(*args, **kwargs))
        answer = kind.forward(self, *own.args, **own.kwargs)
        return _with_lost(answer, _tensors_of(own), lost)

    made.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return made


def _with_copies(bound: inspect.BoundArguments) -> inspect.BoundArguments:
    for name, value in bound.arguments.items():
        copies: list[Tensor] = [tensor.clone() for _, tensor in named_tensors(value, name)]
        bound.arguments[name] = with_tensors(value, iter(copies))
    return bound


def _tensors_of(bound: inspect.BoundArguments) -> dict[str, Tensor]:
    return {path: tensor for name, value in bound.arguments.items() for path, tensor in named_tensors(value, name)}


def _gives(result: Any, value: Tensor, *, written: bool) -> bool:
    """Whether ``result`` holds what became of an input; of one that was only ``written`` to, anything that it may become."""
    alike = [own for _, own in named_tensors(result, "") if own.shape == value.shape]
    return any(written or torch.equal(own, value) for own in alike)


def _with_lost(answer: Any, now: Mapping[str, Tensor], lost: Sequence[str]) -> Any:
    if not lost:
        return answer
    if type(answer) is dict:
        return {**answer, **{f"{name}_next": now[name] for name in lost}}
    behind = [now[name] for name in lost]
    return (*answer, *behind) if type(answer) is tuple else (answer, *behind)
