"""Numbers among the arguments of ``forward`` that are the size of an axis: ``forward(x, batch_size)``, ``feed["batch_size"]``.

A file holds what is no tensor as it is in the example, so such a module is refused as one that takes no other batch.  Where it
fails at another size as long as the number stays, and runs once the number follows, the number is read off the tensor.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.nesting import named_tensors, with_tensors
from rnncore.runtime.error_boundary import pass_on_interruption

_AXES = (0, 1)
"""Axes whose size a number may be: rows and steps are among the first two."""
_BATCH = re.compile(r"batch|^bsz?$|^b$|^n$|rows|envs", re.IGNORECASE)
Place = tuple[int, int]
"""(number of a tensor among all arguments, axis of it)."""


def is_called_batch(name: str) -> bool:
    """Whether a number of this name says how many rows there are, and nothing else."""
    return _BATCH.search(name) is not None


def with_following_numbers(model: nn.Module, example: Any) -> tuple[nn.Module, str] | None:
    """A copy of ``model`` in which numbers follow an axis, and what to say of it; None where none has to."""
    if "forward" in model.__dict__:
        return None
    found = copied_and_bound(model, example)
    if found is None:
        return None
    made, bound = found
    arguments, values = bound.arguments, list(bound.arguments.values())
    tensors = [tensor for _, tensor in named_tensors(values, "")]
    for axis in _AXES:
        named = [(path, own) for path, own in _numbers([*arguments.items()])]
        for size in dict.fromkeys(own for _, own in named):
            places = [(k, axis) for k, one in enumerate(tensors) if one.dim() > axis and one.shape[axis] == size]
            called = [path for path, own in named if own == size]
            steps = not all(map(is_called_batch, called))

            def run(changed: Sequence[Tensor], now: int, size: int = size) -> bool:
                return runs(made, bound, _replaced(values, size, now), changed)

            along = {k for k, _ in places}
            if size > 1 and places and has_to_follow(run, tensors, along, axis, steps=steps):
                names = ", ".join(map(repr, called))
                return _following(made, size, places[0]), f"{names} is the size of axis {axis}, and follows it"
    return None


def copied_and_bound(model: nn.Module, example: Any) -> tuple[nn.Module, inspect.BoundArguments] | None:
    """A copy of ``model`` in eval mode, and its arguments; None where the example is none for it, which is said elsewhere."""
    made = copied(model).eval()
    try:
        return made, bind(made, example)
    except Exception as failure:
        pass_on_interruption(failure)
        return None


def has_to_follow(
    run: Callable[[Sequence[Tensor], int], bool], tensors: Sequence[Tensor], along: Set[int], axis: int, *, steps: bool
) -> bool:
    """Whether a module fails where an axis has other sizes and a number has not, and runs where it has.

    Of 1 it may make what it likes.

    Args:
        run: whether the module runs on tensors with the number given.
        tensors: all of the example.  along: which of them have the axis.
        steps: the axis may be of steps, which may come in blocks of a number, so that their double runs as well.
    """
    own = tensors[min(along)].shape[axis]
    for size in (1, own + 1, *([2 * own] if steps else [])):
        entries = torch.arange(size).clamp(max=own - 1)
        changed = [one.index_select(axis, entries) if k in along else one for k, one in enumerate(tensors)]
        if not run(changed, size) or (size > 1 and run(changed, own)):
            return False
    return True


def runs(module: nn.Module, bound: inspect.BoundArguments, values: Sequence[Any], tensors: Sequence[Tensor]) -> bool:
    """Whether ``module`` runs on ``values``, with ``tensors`` in place of theirs, as its arguments."""
    given = with_tensors(list(values), iter(tensors))
    call = inspect.BoundArguments(bound.signature, dict(zip(bound.arguments, given, strict=True)))
    try:
        with unchanged(module), torch.no_grad():
            module(*call.args, **call.kwargs)
    except Exception as failure:  # then it does not
        pass_on_interruption(failure)
        return False
    return True


def _following(module: nn.Module, number: int, place: Place) -> nn.Module:
    """``module``, changed: every ``number`` among its arguments is the size of an axis of one of them."""
    kind: Any = type(module)

    @functools.wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        tensors = [tensor for _, tensor in named_tensors([*args, *kwargs.values()], "")]
        size = tensors[place[0]].shape[place[1]]
        named = {name: _replaced(value, number, size) for name, value in kwargs.items()}
        return kind.forward(self, *(_replaced(value, number, size) for value in args), **named)

    module.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return module


def _replaced(value: Any, number: int, size: Any) -> Any:
    if type(value) is int:
        return size if value == number else value
    return _mapped(value, lambda part: _replaced(part, number, size))


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: change(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [change(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _numbers(named: Sequence[tuple[Any, Any]]) -> Iterator[tuple[str, int]]:
    """Whole numbers in containers, with the name or place that each has in the innermost one."""
    for name, value in named:
        if type(value) is int:
            yield str(name), value
        elif isinstance(value, Mapping):
            yield from _numbers([*value.items()])
        elif isinstance(value, tuple | list):
            yield from _numbers([*enumerate(value)])
