"""How a module whose parts have steps of their own may be exported: by its ``forward`` if that streams, else by these steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from rnncore.export.options import Options
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Example, check_runs
from rnncore.export.tracing.own_steps.method import methods_of
from rnncore.export.tracing.own_steps.search import FoundStep, find_own_steps, parts_with_steps
from rnncore.runtime.errors import RnncoreError

Reading = tuple[nn.Module, Any, Options]


def with_own_steps(model: nn.Module, example: Any, options: Options) -> list[Reading]:
    """The ways to export ``model``, the better one first: its ``forward`` if that may stream, its steps, else its ``forward``.

    Steps come first where ``forward`` itself goes another and shorter way for one step.  Inner steps come first, which leave most
    of ``forward`` as it is.  Nothing is searched for where no part has a method of such a name, or where a file cannot stream,
    or not be proved to.
    """
    as_it_is = (model, example, options)
    if options.streaming is False or not options.verify or not parts_with_steps(model):
        return [as_it_is]
    found = _found(model, example, options)
    inner, outer = _inner(found), _outer(found)
    choices = [inner, outer] if _paths(inner) != _paths(outer) else [inner]
    if not inner:
        return [as_it_is if found else (model, example, replace(options, step_note=_not_understood(model)))]
    must = replace(options, streaming=True)
    as_all = [] if all(one.only for one in inner) else [(model, example, must)]
    stepped = [replace(must, own_steps=choice, remarks=(*options.remarks, _said(choice))) for choice in choices]
    last = replace(options, step_note=f"; {_said_of(choices[0])}, but no file of it could be proved")
    by_steps = [(model, example, one) for one in stepped]
    streaming = [*by_steps, *as_all] if all(one.shorter for one in inner) else [*as_all, *by_steps]
    return [*streaming, (model, example, last)]


def _not_understood(model: nn.Module) -> str:
    """What is to be said of a step that is none of ``forward``, as far as one sees; nothing if there is none."""
    named = ((path, methods_of(part)) for path, part in model.named_modules())
    path, methods = next((own for own in named if own[1]), ("", []))
    if not methods:
        return ""
    name = f"{path}.{methods[0]}" if path else methods[0]
    return (
        f"; there is '{name}', which was not recognised as a step of forward: (y, state) of one entry and a state that begins "
        "with nothing, with what a method such as default_state(batch_size) gives, or with zeros"
    )


def _found(model: nn.Module, example: Any, options: Options) -> list[FoundStep]:
    module = copied(model).eval()
    try:
        with unchanged(module):
            call = Example.of(module, example, options.axes, options.lengths)
        with unchanged(module):
            check_runs(call, module)
        with unchanged(module):
            call = find_axes(module, call, options.axes, options.seed)
        with unchanged(module):
            return find_own_steps(module, call, options.seed)
    except RnncoreError:  # which the export says as well
        return []


def _inner(found: Sequence[FoundStep]) -> tuple[FoundStep, ...]:
    """Those within which there is no other, without those whose ``forward`` is a loop already."""
    own = [one for one in found if not one.loops]
    return tuple(one for one in own if not any(_within(other.path, one.path) for other in own))


def _outer(found: Sequence[FoundStep]) -> tuple[FoundStep, ...]:
    """Those that are within no other, and are no loop or have something within that is none."""
    own = [one for one in found if any(not o.loops and (o is one or _within(o.path, one.path)) for o in found)]
    return tuple(one for one in own if not any(_within(one.path, other.path) for other in own))


def _paths(steps: Sequence[FoundStep]) -> tuple[str, ...]:
    return tuple(one.path for one in steps)


def _within(path: str, other: str) -> bool:
    return path != other and (not other or path.startswith(f"{other}."))


def _said_of(steps: Sequence[FoundStep]) -> str:
    if len(steps) == 1:
        return f"'{steps[0].name}' computes one step as forward computes all"
    return f"'{steps[0].name}' and {len(steps) - 1} more compute one step as forward computes all"


def _said(steps: Sequence[FoundStep]) -> str:
    them = "that step in a loop" if len(steps) == 1 else "these steps in loops"
    shorter = all(one.shorter for one in steps)
    why = f"{_said_of(steps)}, in fewer operations" if shorter else f"forward does not stream; {_said_of(steps)}"
    return (
        f"{why}: the file holds {them} (with streaming=False it holds forward, if that can be written, which may be faster "
        "over whole sequences)"
    )
