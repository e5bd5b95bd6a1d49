"""Whether a module that is to be exported computes one step, and then the module that is exported in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from rnncore.export.options import Options
from rnncore.export.own_steps import with_own_steps
from rnncore.export.tracing.axes import NoBatchAxis, find_axes
from rnncore.export.tracing.changed_inputs import sparing_inputs
from rnncore.export.tracing.chosen_outputs import with_chosen_outputs
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Example, check_runs
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.one_step import is_one_step, over_time, states_from_zeros, with_fixed_states
from rnncore.export.tracing.squeezes import keeping_axes


def ways_to_read(model: nn.Module, example: Any, options: Options) -> list[tuple[nn.Module, Any, Options]]:
    """How a module may be exported, the better way first: one of a single step as one over time, any other as it is.

    Where the caller names the states of a single step, there is no other way.  Parts of others may have steps of their own.
    """
    model = sparing_inputs(model, example)
    model, names = with_chosen_outputs(model, options.output_names)
    options = replace(options, output_names=names)
    try:
        stepped = as_over_time(model, example, options)
    except NoBatchAxis:  # one step of one sequence, say: how else it may be read is tried after this has failed again
        return [(model, example, options)]
    if stepped is None:
        return with_own_steps(model, example, options)
    return [stepped] if options.states is not None else [stepped, (model, example, options)]


def as_over_time(model: nn.Module, example: Any, options: Options) -> tuple[nn.Module, Any, Options] | None:
    """A module of one step, whose states the caller names or starts from zeros, as one over time; None for others.

    Returns the module with an example and options of its own.
    """
    if options.states == {} or (options.states is None and not _has_zeros(example)):
        return None
    step = copied(model).eval()
    with unchanged(step):
        call = Example.of(step, example, options.axes, options.lengths)
    with unchanged(step):
        check_runs(call, step)
    step, kept_axes = keeping_axes(step, call, said=options.axes is not None)
    with unchanged(step):
        call = find_axes(step, call, options.axes, options.seed)
        found = states_from_zeros(step, call)
    states = options.states or found
    if states == found:
        call = with_fixed_states(call, states)
    if not states or not is_one_step(call):
        return None
    module, drawn = over_time(step, call, states, options.output_names)
    remarks = (*options.remarks, *kept_axes)
    return module, drawn, replace(options, axes=None, states=None, output_names=None, remarks=remarks)


def _has_zeros(example: Any) -> bool:
    """Whether a tensor of ``example`` may be a state of one step that starts from zeros."""
    values = list(example.values()) if isinstance(example, Mapping) else example
    found = [value for _, value in named_tensors(values, "")]
    return len(found) > 1 and any(value.dim() > 1 and not bool(value.any()) for value in found)
