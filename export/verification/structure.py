"""What the structure of a traced module already tells about streaming, before anything is run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import lcm

from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.run_overlap import RunOverlap, period_of
from rnncore.export.graph.zero_values import always_zero
from rnncore.export.tracing.chosen_outputs import left_out_by
from rnncore.export.tracing.recorder import DOMAIN, OP_TYPE, STATE_IN, STATE_OUT, Call, StreamingLayerCall
from rnncore.export.tracing.rows import inner_calls, rows_of_each, starts_anew
from rnncore.export.tracing.trace import Trace
from rnncore.export.verification.cases import TOGETHER_DETAIL, Case
from rnncore.runtime.format.axes import BATCH, TIME, Steps, base_of, inner_shape, overlap_of
from rnncore.runtime.format.axes import stride_of as of_outputs

CHUNKS_DIFFER = "fed in chunks the model answers differently"
LEAVE_OUT = "(leave it out, or make it zeros: the file then carries the state itself)"


def why_not_causal(traced: Trace, *, must_lengths: bool = False, names: Sequence[str | None] = ()) -> str:
    """Why the module cannot stream, naming the layer; empty when the structure does not forbid it.

    must_lengths: the file must take lengths.  names: of all outputs of the module, None for those that are left out.
    """
    for own in traced.example.inputs:
        for axis in own.axes:
            if isinstance(axis, Steps):
                return f"input '{own.name}' has {axis} steps: chunks of two inputs would have to differ in length"
    for name, axis in traced.example.counts.items():
        if axis == TIME:
            return f"input '{name}' says how many steps a whole sequence has"
    inner, runs = inner_calls(traced.model), runs_of(traced)
    for call in traced.calls.values():
        if call.layer.reverse and call.name not in inner:
            return f"layer '{call.name}' reads backward in time (bidirectional or reverse)"
    calls: dict[str, Call | StreamingLayerCall] = {**traced.calls, **traced.carried}
    for node in traced.model.graph:
        if node.domain != DOMAIN or node.op_type == STATE_OUT:
            continue
        name = node.attributes["call"].as_string()
        if name in inner:
            continue
        dims = dims_of(node.inputs[0])
        loop = node.op_type == OP_TYPE
        own_rows = rows_of_each(dims) is not None if loop else dims[:1] == [BATCH]
        if not own_rows and (starts_anew(node, calls[name]) if loop else not calls[name].given_state):
            return f"layer '{name}' runs over a batch of {dims[0]}, not over the batch of the inputs"
        if not _follows_time(dims[1:2]):
            because = f" ({'; '.join(traced.time_operators[:2])})" if traced.time_operators else ""
            return f"layer '{name}' runs over {dims[1]} steps, not over the time steps of the inputs{because}"
        again = 0 if runs is None else runs.again(dims[1])
        # A second loop computes what the next run has again, from a state that is none of a row of its own length.
        measured = not loop or must_lengths or traced.example.lengths is not None
        if runs is not None and (again is None or (again and measured)):
            return (
                f"layer '{name}' runs over {dims[1]} steps, and an answer wants {runs.steps} input steps before its own: a "
                "stream would run it over those again (put what looks back unpadded before the layer, or leave lengths out)"
            )
    if not any(TIME in dims_of(value) for value in traced.model.graph.inputs):
        return "no input has a time axis (of one step, say which inputs are states: states={'h': 'output_1'})"
    masks = {own.name for own in traced.example.inputs if own.filling is not None}
    for one in traced.longest:
        counted = [name for name in one.read if name not in masks]
        if counted and one.axis == TIME:
            return (
                f"rows end with the longest of them, which the module finds in '{counted[0]}'; it streams if it takes their "
                "lengths as an argument"
            )
    return _why_no_strides(traced, names)


def stride_of(traced: Trace) -> int:
    """Steps after which every output has whole steps of its own, and the module takes them."""
    time = traced.example.extents.get(TIME)
    return lcm(1 if time is None else time.multiple, of_outputs(traced.example.output_shapes or ()))


def runs_of(traced: Trace) -> RunOverlap | None:
    """How the runs of a stream lie, so that every output and every loop goes on where it ended; None if they cannot."""
    time = traced.example.extents.get(TIME)
    overlap = overlap_of(traced.example.output_shapes or (), 1 if time is None else time.multiple)
    inner = inner_calls(traced.model)
    loops = [node for node in traced.model.graph if node.domain == DOMAIN and node.op_type == OP_TYPE]
    apart = [
        period_of(steps)
        for node in loops
        if node.attributes["call"].as_string() not in inner
        for steps in dims_of(node.inputs[0])[1:2]
    ]
    return None if overlap is None else RunOverlap(overlap, lcm(stride_of(traced), *apart))


def _why_no_strides(traced: Trace, names: Sequence[str | None]) -> str:
    """Why a module whose outputs do not have one step for each of the input cannot stream; empty if it can."""
    why = _why_not_these(traced)
    return f"{why}{_streams_without(traced, names)}" if why else ""


def _streams_without(traced: Trace, all_names: Sequence[str | None]) -> str:
    """How to leave out the fewest outputs, so that nothing speaks against a stream of the others; empty if there is no way."""
    names = [str(value.name) for value in traced.model.graph.outputs]
    shapes = traced.example.output_shapes or ()
    timed = [next((size for size in inner_shape(shape) if base_of(size) == TIME), None) for shape in shapes]
    if len(names) != len(shapes):
        return ""
    ways = [[own is not None for own in timed], *([own == size for own in timed] for size in dict.fromkeys(timed))]
    for kept in sorted(ways, key=lambda way: -sum(way)):
        rest = tuple(shape for shape, keeps in zip(shapes, kept, strict=True) if keeps)
        fewer = replace(traced, example=replace(traced.example, output_shapes=rest))
        if any(size is not None and keeps for size, keeps in zip(timed, kept, strict=True)) and not _why_not_these(
            fewer
        ):
            return left_out_by(all_names or names, {name for name, keeps in zip(names, kept, strict=True) if not keeps})
    return ""


def _why_not_these(traced: Trace) -> str:
    runs, example = runs_of(traced), traced.example
    shapes = [inner_shape(shape) for shape in example.output_shapes or ()]
    if runs is None:
        sizes = list(dict.fromkeys(size for shape in shapes for size in shape if base_of(size) == TIME))
        if len(sizes) > 1:
            return f"outputs have {' and '.join(map(str, sizes))} steps: one answers to steps for which another waits"
        return f"an output has {sizes[0]} steps: some of them answer only after more steps have come than they are for"
    if runs == RunOverlap():
        return ""
    time, least = example.extents.get(TIME), runs.steps + runs.stride
    if time is not None and time.minimum > least:
        of = f"{runs.stride} at a time" if not runs.steps else f"as soon as there are {least}"
        return f"it takes at least {time.minimum} steps, and a stream {of}"
    ports = [*(own.axes for own in example.inputs), *shapes]
    names = {base_of(size) for shape in ports for size in shape if size is not None} - {None, BATCH, TIME}
    timeless = [shape for shape in shapes if all(base_of(size) != TIME for size in shape)]
    if names or timeless:
        what = f"axis '{min(map(str, names))}'" if names else "an output for the whole sequence"
        of = f"{runs.stride} steps at a time" if not runs.steps else f"{runs.steps} steps again with each chunk"
        return f"it takes {of}, and has {what}, which such streams do not know"
    return ""


def _follows_time(sizes: list[int | str | None]) -> bool:
    """Whether the size of an axis is that of time, or a function of it alone."""
    return bool(sizes) and isinstance(sizes[0], str) and set(re.findall(r"[A-Za-z_]\w*\b(?!\()", sizes[0])) == {TIME}


def why_chunks_differ(traced: Trace, case: Case, most: int = 3) -> str:
    """What a failed ``case`` of streaming says, and what in the module may be behind it, by path and class."""
    if case.detail.startswith(TOGETHER_DETAIL):
        return (
            f"streams that move in one call answer differently: {case}; the module mixes or reorders the rows of its batch "
            "(leave sorting by length to pack_padded_sequence(enforce_sorted=False)), or runs on through padding"
        )
    time_operators = [*_started_by_hand(traced), *traced.time_operators]
    more = f"; and {len(time_operators) - most} more" if len(time_operators) > most else ""
    named = f"it looks along the time axis: {'; '.join(time_operators[:most])}{more}"
    return f"{CHUNKS_DIFFER}: {case}; {named if time_operators else 'something in it looks along the time axis'}"


def _started_by_hand(traced: Trace) -> list[str]:
    """Layers that forward hands a state that is more than zeros: each chunk would start from that again."""
    calls: dict[str, Call | StreamingLayerCall] = {**traced.calls, **traced.carried}
    found = []
    for node in traced.model.graph:
        if node.domain != DOMAIN or node.op_type == STATE_OUT:
            continue
        call = calls[node.attributes["call"].as_string()]
        states = node.inputs[1 if node.op_type == STATE_IN else 3 :]
        if (
            call.given_state
            and getattr(call, "starts", None) is None
            and not all(always_zero(state) for state in states)
        ):
            found.append(f"{call.name}: starts from a state that forward hands over, every chunk anew {LEAVE_OUT}")
    return found
