"""A part of a module with its own step run over time in place of its ``forward``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.nesting import has_fields, named_tensors
from rnncore.export.tracing.own_steps.method import Method, Unlike
from rnncore.export.tracing.own_steps.seen import by_name
from rnncore.export.tracing.own_steps.starts import Start
from rnncore.export.tracing.own_steps.values import tensors_in

SETUPS = ("setup_step",)
"""Names of methods that are to be called once before the first step."""


@dataclass(frozen=True)
class Given:
    """Where a tensor that ``forward`` gives comes from: the steps' ``number``-th, joined along ``time``, or the last past's."""

    number: int
    time: int | None = None
    of_past: bool = False


@dataclass(frozen=True)
class OwnStep:
    """How ``forward`` of a part is computed by its own step.

    kind: the class of the part.  axes: of each sequence those of the rows and of time.  outputs: what ``forward`` gives, with
    tensors whose values do not matter; ``given``: where each of them comes from.
    """

    kind: type
    method: Method
    start: Start
    axes: Mapping[str, tuple[int | None, int]]
    outputs: Any
    given: Sequence[Given]

    def steps(self, part: nn.Module, arguments: Mapping[str, Any]) -> Iterator[tuple[list[Tensor], tuple[Any, ...]]]:
        """What each step gives, and the past after it."""
        first, (row_axis, time_axis) = next((n, axes) for n, axes in self.axes.items() if axes[0] is not None)
        like = arguments[first]
        past = self.start.of(part, self.method, like.shape[row_axis], like)
        for t in range(like.shape[time_axis]):
            y, past = self.method.call(part, self.kind, self.entries(arguments, t), past, t)
            yield [value for _, value in named_tensors(y, "")], past

    def entries(self, arguments: Mapping[str, Any], t: int) -> dict[str, Tensor]:
        """Step ``t`` of each sequence."""
        return {name: self._entry(arguments[name], time, t) for name, (_, time) in self.axes.items()}

    def _entry(self, value: Tensor, time: int, t: int) -> Tensor:
        return value.narrow(time, t, 1) if self.method.keeps_time else value.select(time, t)

    def run(self, part: nn.Module, arguments: Mapping[str, Any]) -> Any:
        """What ``forward`` gives.

        Raises:
            Unlike: a step gives something else than before.  Whatever the module raises.
        """
        done = list(self.steps(part, arguments))
        kept, past = [values for values, _ in done], done[-1][1]
        return rebuilt(self.outputs, iter([self._joined(kept, past, own) for own in self.given]))

    def _joined(self, kept: Sequence[list[Tensor]], past: tuple[Any, ...], own: Given) -> Tensor:
        if own.of_past:
            return list(tensors_in(past))[own.number]
        if own.time is None:
            return kept[-1][own.number]
        return joined([values[own.number] for values in kept], own.time, own_axis=self.method.keeps_time)


def joined(values: Sequence[Tensor], time: int, *, own_axis: bool) -> Tensor:
    """What steps give along axis ``time``; ``own_axis``: each has an axis of 1 there."""
    if own_axis and values[0].dim() <= time:
        raise Unlike("a step has fewer axes")
    return torch.cat(list(values), time) if own_axis else torch.stack(list(values), time)


def rebuilt(value: Any, tensors: Iterator[Tensor]) -> Any:
    """``value`` with every tensor replaced by the next one, in whatever class it came."""
    if isinstance(value, Tensor):
        return next(tensors)
    if has_fields(value):
        return replace(value, **{own.name: rebuilt(getattr(value, own.name), tensors) for own in fields(value)})
    if isinstance(value, Mapping):
        return {key: rebuilt(item, tensors) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [rebuilt(item, tensors) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def prepare(part: nn.Module) -> None:
    """Call what is to be called once before the first step."""
    for name in SETUPS:
        if callable(getattr(type(part), name, None)):
            with torch.no_grad():
                getattr(part, name)()


def run_by_step(part: nn.Module, own: OwnStep) -> None:
    """Let ``part`` compute its ``forward`` by its own step."""
    prepare(part)
    kind = type(part)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return own.run(self, _arguments(self, own, args, kwargs))

    part.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _arguments(part: nn.Module, own: OwnStep, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    forward: Any = own.kind.forward  # type: ignore[attr-defined]
    named = by_name(forward.__get__(part), args, kwargs)
    if named is None:
        raise Unlike("it is called in another way")
    return named
