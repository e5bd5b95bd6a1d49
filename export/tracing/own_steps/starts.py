"""What a module's own step begins with: what a method of it makes, zeros of what a step returns, or nothing at all."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.own_steps.method import Method
from rnncore.export.tracing.own_steps.values import Nothing, tensors_in, with_others, zeros
from rnncore.runtime.error_boundary import pass_on_interruption

MAKERS = (
    *("default_state", "initial_state", "init_state", "get_initial_state", "empty_state", "zero_state", "begin_state"),
    *("allocate_inference_cache", "init_cache", "empty_cache", "init_hidden", "initial_hidden", "initialize_state"),
    *("init_states", "initial_states", "get_init_state", "make_state", "reset_state", "zero_states"),
)
"""Names that people give to a method that makes the state before the first step."""
_MOST_PARTS = 4
_ROWS = ("batch", "batch_size", "bsz", "bs", "b", "B", "n", "batch_shape", "batch_dims")


@dataclass(frozen=True)
class Start:
    """Nothing: the step makes its state itself.

    blank: it must be handed something, zeros that may be unpacked to so many; 0 if not.
    """

    blank: int = 0

    def of(self, part: nn.Module, method: Method, rows: Any, like: Tensor) -> tuple[Any, ...] | None:
        """The past of the first step, for so many rows; None for no such arguments."""
        return (Nothing.of(like, self.blank),) * method.needed if self.blank else None


@dataclass(frozen=True)
class Made(Start):
    """What the method ``maker`` makes of the number of rows; ``named``: the parameter that takes it."""

    maker: str = ""
    named: str | None = None

    def of(self, part: nn.Module, method: Method, rows: Any, like: Tensor) -> tuple[Any, ...] | None:
        """What it makes, one for each argument where it makes so many."""
        make = getattr(part, self.maker)
        made = make(rows) if self.named is None else make(**{self.named: rows})
        return tuple(made) if type(made) in (tuple, list) and len(made) == len(method.carried) > 1 else (made,)


@dataclass(frozen=True)
class Zeros(Start):
    """What a step returns, with zeros in it.

    after: what a step returned for ``rows`` rows.  axes: that of the rows in each of its tensors, None where it has none; such
    a tensor stays as it is if ``keeps``.
    """

    after: tuple[Any, ...] = ()
    rows: int = 1
    axes: Sequence[int | None] = ()
    keeps: bool = False

    def of(self, part: nn.Module, method: Method, rows: Any, like: Tensor) -> tuple[Any, ...] | None:
        """The same structure with zeros for so many rows."""

        def other(number: int, tensor: Tensor) -> Tensor:
            axis = self.axes[number]
            if axis is None:
                return tensor.clone() if self.keeps else zeros(tuple(tensor.shape), tensor)
            shape = list(tensor.shape)
            shape[axis] = shape[axis] // self.rows * rows
            return zeros(tuple(shape), tensor)

        return with_others(self.after, other)


def starts(part: nn.Module) -> Iterator[Start]:
    """What a step of ``part`` may begin with, without a look at what it returns."""
    for name in MAKERS:
        make = getattr(type(part), name, None)
        if callable(make):
            parameters = list(inspect.signature(getattr(part, name)).parameters.values())
            named = [
                p.name for p in parameters if p.name in _ROWS and p.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD
            ]
            yield Made(maker=name, named=named[0] if named else None)
    yield from map(Start, range(_MOST_PARTS + 1))


def zeros_after(pasts: Sequence[tuple[int, tuple[Any, ...]]]) -> Iterator[Zeros]:
    """Zeros like what a step returned: for each number of rows what that was, after one step."""
    (rows, one), (more, other) = pasts
    pairs = list(zip(tensors_in(one), tensors_in(other), strict=True))
    axes: list[int | None] = []
    for a, b in pairs:
        differ = [k for k, (x, y) in enumerate(zip(a.shape, b.shape, strict=True)) if x != y]
        if len(differ) > 1 or any(a.shape[k] * more != b.shape[k] * rows for k in differ):
            return
        axes.append(differ[0] if differ else None)
    if not any(axis is not None for axis in axes):
        return
    yield Zeros(after=_still(one), rows=rows, axes=axes)
    if None in axes:
        yield Zeros(after=_still(one), rows=rows, axes=axes, keeps=True)


def _still(past: tuple[Any, ...]) -> tuple[Any, ...]:
    """A copy that no later step changes."""
    return with_others(past, lambda _, tensor: tensor.detach().clone())


def past_after_one(
    part: nn.Module, entries: Mapping[str, Tensor], rows: int, method: Method, start: Start
) -> tuple[Any, ...] | None:
    """What the first of all steps returns; None if it does not run."""
    like = next(iter(entries.values()))
    try:
        with torch.no_grad():
            return method.call(part, type(part), entries, start.of(part, method, rows, like), 0)[1]
    except Exception as failure:  # not so
        pass_on_interruption(failure)
        return None
