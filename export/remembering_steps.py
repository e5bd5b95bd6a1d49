"""A module of one step that keeps its state in attributes between calls, read as one over time.

Neurons and policies are written so: ``self.h = self.cell(x, self.h)``.  What runs over time is the loop that their callers
write, from what the attributes hold when the module is handed in.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.options import Options
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.one_step import OverTime, is_one_step, over_time
from rnncore.export.verification.repeatable import Remembers, check_repeatable, same_answers
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.axes import BATCH


@dataclass(frozen=True)
class _Parts:
    """What a list or tuple of states is made of."""

    kind: type
    parts: tuple[Any, ...]


class _Begins(OverTime):
    """Every sequence begins with the attributes as they are, or with zeros where these mean the same."""

    zeros: Mapping[str, Any] = {}
    """What an attribute holds after a call, by path: tensors, maybe in tuples, with an entry for each row."""

    def run(self, sequences: Sequence[Tensor]) -> dict[str, Tensor]:
        with unchanged(self.step):
            _set(self.step, self.zeros, sequences[0].shape[0])
            return super().run(sequences)


def _set(step: nn.Module, zeros: Mapping[str, Any], rows: Any) -> None:
    for path, value in zeros.items():
        owner, _, name = path.rpartition(".")
        setattr(step.get_submodule(owner), name, _of_rows(value, rows))


def _of_rows(value: Any, rows: Any) -> Any:
    """Zeros for so many rows in place of each ``(shape, axis of the rows, dtype)``."""
    if isinstance(value, _Parts):
        return value.kind(_of_rows(part, rows) for part in value.parts)
    shape, axis, dtype = value
    return torch.zeros((*shape[:axis], rows, *shape[axis + 1 :]), dtype=dtype)


def _zeros_for(step: nn.Module, kept: Sequence[str], call: Example) -> dict[str, Any]:
    """What to begin with for those attributes that hold nothing yet, or 0, if zeros give the same answer."""
    given = [own.value for own in call.inputs]
    more = [torch.cat([value, value.narrow(0, 0, 1)]) for value in given]
    ends = []
    with torch.no_grad():
        for tensors in (given, more):
            with unchanged(step):
                right = [value.clone() for _, value in named_tensors(call.call(step, tensors), "")]
                ends.append({path: _held(step, path) for path in kept})
        found = {path: _templates(ends[0][path], ends[1][path]) for path in kept if _is_nothing(_held(step, path))}
        zeros = {path: value for path, value in found.items() if value is not None}
        with unchanged(step):
            _set(step, zeros, more[0].shape[0])
            other = [value for _, value in named_tensors(call.call(step, more), "")]
    return zeros if same_answers(right, other) else {}


def with_rows_of_inputs(model: nn.Module, example: Any) -> tuple[nn.Module, dict[str, Any]] | None:
    """A copy each call of which begins with zeros for as many rows as its first input has, and these; None for others.

    Who calls ``model.hidden = model.init_hidden(batch)`` before each batch leaves zeros of the example's batch in it.
    """
    made = copied(model).eval()
    arguments = bind(made, example)
    try:
        with unchanged(made):
            kept = check_repeatable(made, arguments)
    except Remembers as moved:
        kept = moved.attributes if moved.way_out_is_an_argument else ()
    except ExportError:
        return None
    values = [value for name, given in arguments.arguments.items() for _, value in named_tensors(given, name)]
    if not kept or not values:
        return None
    for axis in range(min(2, values[0].dim())):
        found = {path: _zeros_of(_held(made, path), values[0].shape[axis]) for path in kept}
        zeros = {path: template for path, template in found.items() if template is not None}
        if zeros and len(zeros) == len([path for path in kept if _has_zeros(_held(made, path))]):
            return _with_zeros(made, zeros, axis), zeros
    return None


def _with_zeros(made: nn.Module, zeros: Mapping[str, Any], axis: int) -> nn.Module:
    forward = made.forward

    @functools.wraps(forward)
    def begun(*args: Any, **named: Any) -> Any:
        first = next(value for _, value in named_tensors([*args, *named.values()], ""))
        _set(made, zeros, first.shape[axis])
        return forward(*args, **named)

    made.forward = begun
    return made


def _zeros_of(value: Any, rows: int) -> Any:
    """Templates for zeros, which hold ``rows`` along their second axis of three, or along the first that does."""
    if isinstance(value, tuple | list):
        parts = [_zeros_of(part, rows) for part in value]
        return None if not parts or any(part is None for part in parts) else _Parts(_kind(value), tuple(parts))
    if not isinstance(value, Tensor) or bool(value.any()):
        return None
    axes = [axis for axis in ((1, 0) if value.dim() == 3 else (0,)) if value.dim() > axis and value.shape[axis] == rows]
    return (tuple(value.shape), axes[0], value.dtype) if axes else None


def _has_zeros(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(map(_has_zeros, value)))


def _kind(value: Any) -> type:
    return list if isinstance(value, list) else tuple


def _held(step: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(step.get_submodule(owner), name, None)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and value == 0)


def _templates(few: Any, more: Any) -> Any:
    if isinstance(few, tuple | list) and isinstance(more, tuple | list) and len(few) == len(more):
        parts = [_templates(a, b) for a, b in zip(few, more, strict=True)]
        return None if any(part is None for part in parts) else _Parts(_kind(few), tuple(parts))
    if not isinstance(few, Tensor) or not isinstance(more, Tensor) or few.dim() != more.dim():
        return None
    axes = [axis for axis, (a, b) in enumerate(zip(few.shape, more.shape, strict=True)) if a != b]
    return (tuple(few.shape), axes[0], few.dtype) if len(axes) == 1 else None


def step_that_remembers(model: nn.Module, example: Any, options: Options) -> tuple[nn.Module, Any, Options] | None:
    """``model`` as a module over time, with an example and options of its own; None if it keeps no state, or has time itself."""
    if options.axes is not None or options.states:
        return None
    step = copied(model).eval()
    arguments = bind(step, example)
    try:
        kept: Sequence[str] = check_repeatable(step, arguments)
    except Remembers as moved:
        kept = moved.attributes if moved.way_out_is_an_argument else ()
    except ExportError:
        return None
    named = [pair for name, value in arguments.arguments.items() for pair in named_tensors(value, name)]
    if not kept or any(value.dim() < 1 for _, value in named):
        return None
    axes = {name: (BATCH, *(None,) * (value.dim() - 1)) for name, value in named}
    rows = with_rows_of_inputs(model, example)
    try:
        once = _beginning(step) if rows is None else rows[0]
        call = find_axes(once, Example.of(once, example, axes, False), axes, options.seed)
        if not is_one_step(call):
            return None
        with unchanged(step):
            module, drawn = over_time(step, call, {}, options.output_names, _Begins)
        module.__dict__["zeros"] = _zeros_for(step, kept, call) if rows is None else rows[1]
    except ExportError:
        return None
    what = f"forward keeps its state in '{kept[0]}': a sequence is one call after the other, from what it holds now"
    return module, drawn, replace(options, output_names=None, remarks=(what,))


def _beginning(step: nn.Module) -> nn.Module:
    """A copy of ``step`` each call of which is the first."""
    made = copied(step)
    forward = made.forward

    @functools.wraps(forward)
    def once(*args: Any, **named: Any) -> Any:
        with unchanged(made):
            return forward(*args, **named)

    made.forward = once
    return made
