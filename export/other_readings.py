"""How a module that was refused may be read otherwise, so that its file takes less and is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from torch import nn

from rnncore.export.options import Options
from rnncore.export.plan import PADDING_SHOWS, PADDING_STAYS
from rnncore.export.remembering_steps import step_that_remembers, with_rows_of_inputs
from rnncore.export.tracing.axes import NoBatchAxis, find_axes
from rnncore.export.tracing.chosen_outputs import with_chosen_outputs
from rnncore.export.tracing.complex_use import uses_complex_numbers
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.flat_packing import packs
from rnncore.export.tracing.following_numbers import with_following_numbers
from rnncore.export.tracing.full_rows import FullRows, lengths_of, of_full_rows, rows_stand_alone
from rnncore.export.tracing.guessed_arguments import guesses
from rnncore.export.tracing.held_sizes import with_ones_held, with_sizes_held
from rnncore.export.tracing.one_sequence import RowByRow, Rows, has_real_batch, row_by_row
from rnncore.export.tracing.one_step import over_time, states_from_zeros, unclear_states
from rnncore.export.tracing.source_lines import line_of_exception
from rnncore.export.tracing.told_numbers import with_told_numbers
from rnncore.export.tracing.trace import NO_LAYER
from rnncore.export.verification.first_call import after_first_call
from rnncore.export.verification.structure import CHUNKS_DIFFER
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError, RnncoreError, VerificationError
from rnncore.runtime.format.axes import TIME
from rnncore.runtime.format.signature import Signature

_BY_HAND = (
    "{} reads packed rows by itself (packed.data, batch_sizes), which is captured where all rows are full in the example and "
    "each step takes its rows in turn, data[i : i + size]; or pad first, and loop over x[:, t]:\n  {}: {}"
)

Reading = tuple[nn.Module, Any, Options]


@contextmanager
def left_out(read: nn.Module | None = None) -> Iterator[None]:
    """A reading that fails, however, is one less: it is the first failure that says what is wrong.

    read: the module of that reading, which keeps the failure if it is one of full rows.
    """
    try:
        yield
    except Exception as failure:
        pass_on_interruption(failure)
        if isinstance(read, FullRows):
            read.failure = failure


def _of_full_rows(
    module: nn.Module, call: Example, held: Mapping[str, str], options: Options, what: str, *, flat: bool
) -> tuple[FullRows, Any, Options]:
    rows, drawn = of_full_rows(module, call, held, flat=flat)
    own = {name: axes for name, axes in (options.axes or {}).items() if name in drawn}
    return rows, drawn, replace(options, axes=own or None, remarks=(*options.remarks, what))


def _row_by_row(model: nn.Module, example: Any, options: Options) -> Iterator[Reading]:
    """``model``, which takes one sequence, as one that takes several."""
    module = copied(model).eval()
    if options.axes is not None:
        return
    with unchanged(module):
        call = Example.of(module, example, None, options.lengths)
    with unchanged(module):
        rows = Rows.of(module, call, options.seed)
    if rows is None:
        return
    stepped = None
    with left_out():
        stepped = _one_row_over_time(module, call, rows, options)
    if stepped is not None:
        module, call, rows = stepped
    batches, drawn, what = row_by_row(module, call, rows)
    given = replace(options, states=None if stepped else options.states, remarks=(*options.remarks, what))
    yield batches, drawn, given
    if stepped is None:
        yield from other_readings(ExportError(), batches, drawn, given)


def _one_row_over_time(
    step: nn.Module, call: Example, rows: Rows, options: Options
) -> tuple[nn.Module, Example, Rows] | None:
    """One step of one sequence, with states, as a module of one sequence over time; None if it is none."""
    call = rows.as_batch(call)
    with unchanged(step):
        states = options.states or states_from_zeros(step, call)
    if not states or options.states == {}:
        return None
    module, drawn = over_time(step, call, states, options.output_names)
    example = Example.of(module, drawn, None, False)
    found = Rows.of(module, example, options.seed)
    return None if found is None else (module, example, found)


def _rows_stand_alone(module: nn.Module, call: Example, held: Mapping[str, str]) -> bool:
    with left_out():
        return rows_stand_alone(module, call, held)
    return False


def _packs(module: nn.Module, call: Example) -> bool:
    try:
        with unchanged(module):
            return packs(module, lambda: call.call(module, [own.value for own in call.inputs]))
    except Exception as error:  # then it is no matter of packing
        pass_on_interruption(error)
        return False


def _has_time(module: nn.Module, example: Any, options: Options) -> bool:
    """Whether an axis of the inputs is time, where sequences of other lengths are no calls of their own."""
    with suppress(ExportError), unchanged(module):
        return (
            TIME in find_axes(module, Example.of(module, example, None, options.lengths), None, options.seed).axis_names
        )
    return False


def _keeping_free(call: Example, read: nn.Module, example: Any, options: Options) -> Iterator[Reading]:
    """A reading of the module of ``call`` as one of one sequence, if what is free in the call is free there as well.

    Else rows were no sequence: they go on from each other, and to take more of them in turn would hide that.
    """
    try:
        with unchanged(read):
            own = Example.of(read, example, options.axes, options.lengths)
            found = find_axes(read, own, options.axes, options.seed)
    except ExportError:
        return
    pairs = [
        pair
        for one, two in zip(call.inputs, found.inputs, strict=True)
        for pair in zip(reversed(one.axes), reversed(two.axes), strict=False)
    ]
    if all(after is not None for before, after in pairs if before is not None):
        yield read, example, replace(options, axes={own.name: own.axes for own in found.inputs})


def _with_guesses(
    model: nn.Module, example: Any, options: Options, tried: Iterator[tuple[Sequence[str | None] | None, str | None]]
) -> Iterator[Reading]:
    for names, lengths in tried:
        chosen, kept = (model, options.output_names) if names is None else with_chosen_outputs(model, names)
        remarks = list(options.remarks)
        if names is not None:
            remarks.append(f"{names.count(None)} of the outputs are empty, and left out")
        if lengths is not None:
            remarks.append(f"'{lengths}' was taken for the lengths of the rows")
        own = options.lengths if lengths is None else lengths
        yield chosen, example, replace(options, output_names=kept, remarks=tuple(remarks), lengths=own)


def streaming_readings(signature: Signature, model: nn.Module, example: Any, options: Options) -> Iterator[Reading]:
    """How to read a module, of which the file with this ``signature`` answers otherwise in chunks, so that it streams.

    What looks back is kept from chunk to chunk where its sizes are known.  An axis of one entry that may have more, such as
    the channel of a spectrum that is multiplied by a mask, is held then.
    """
    if options.streaming != "auto" or not signature.not_causal_because.startswith(CHUNKS_DIFFER):
        return
    module = copied(model).eval()
    with suppress(ExportError), unchanged(module):
        call = Example.of(module, example, options.axes, options.lengths)
        sizes = {own.name: own.value.shape for own in call.inputs}
        axes = {spec.name: spec.shape for spec in signature.inputs if spec.name in sizes}
        if any(len(sizes[name]) != len(own) for name, own in axes.items()):
            return
        held = with_ones_held(axes, sizes, options.axes or {})
        if held is not None:
            remarks = (*options.remarks, f"so that it streams, {held[1]}, as in the example")
            yield model, example, replace(options, axes=held[0], streaming=True, remarks=remarks)


def other_readings(why: Exception, model: nn.Module, example: Any, options: Options) -> Iterator[Reading]:
    """Modules, examples and options to try after ``why``: with full lengths inside, or with axes held as in the example."""
    pass_on_interruption(why)  # a time limit is no reason to try more
    if isinstance(why, RnncoreError) and not isinstance(why, ExportError):
        return  # what was asked for is wrong
    if options.accuracy_data is not None:
        return
    settled = after_first_call(model, example)
    if settled is not None:
        own = settled[0], example, replace(options, remarks=(*options.remarks, settled[1]))
        yield own
        yield from _settled_readings(why, *own)  # once: one that seems to change at every first call would never end
        return
    yield from _settled_readings(why, model, example, options)


def _settled_readings(why: Exception, model: nn.Module, example: Any, options: Options) -> Iterator[Reading]:
    if isinstance(why, VerificationError) and str(why).startswith(PADDING_SHOWS) and options.lengths == "auto":
        remarks = (*options.remarks, PADDING_STAYS)
        yield model, example, replace(options, lengths=False, remarks=remarks)
    if not isinstance(why, VerificationError) and not options.written_out and uses_complex_numbers(model, example):
        yield model, example, replace(options, written_out=True)
    for follow in () if isinstance(why, VerificationError) else (with_following_numbers, with_told_numbers):
        following = follow(model, example)
        if following is not None:
            yield following[0], example, replace(options, remarks=(*options.remarks, following[1]))
    if isinstance(why, NoBatchAxis):
        yield from _row_by_row(model, example, options)
    begun = with_rows_of_inputs(model, example) if options.axes is None else None
    if begun is not None:
        told = None if isinstance(why, VerificationError) else with_told_numbers(begun[0], example)
        module, follows = begun[0] if told is None else told[0], [] if told is None else [told[1]]
        if _has_time(module, example, options):
            what = f"forward keeps its state in '{next(iter(begun[1]))}': every sequence begins with zeros"
            yield module, example, replace(options, remarks=(*options.remarks, *follows, what))
            return
    remembers = step_that_remembers(model, example, options)
    if remembers is not None:
        yield remembers
        return
    module = copied(model).eval()
    try:
        with unchanged(module):
            call = Example.of(module, example, options.axes, options.lengths)
        with unchanged(module):
            call = find_axes(module, call, options.axes, options.seed)
    except ExportError:
        return
    if NO_LAYER in str(why) and options.states is None and (states := unclear_states(module, call)):
        raise ExportError(
            f"{why}; if it is one step, and {', '.join(states)} are its states: which output each becomes is not clear of "
            f"their shapes: states={states!r}, say"
        ) from why
    if options.lengths == "auto" and not isinstance(why, VerificationError):
        tried = guesses(module, call, named=options.output_names is not None)
        yield from _with_guesses(model, example, options, tried)
    held = {} if isinstance(why, VerificationError) or options.lengths != "auto" else lengths_of(call)
    full: FullRows | None = None
    if held and _rows_stand_alone(module, call, held):
        what = f"forward reads {', '.join(held)} as numbers: the file takes none of them, and each row is as if it were full"
        with suppress(ExportError):
            reading = _of_full_rows(module, call, held, options, what, flat=False)
            full = reading[0]
            yield reading
    by_hand = not isinstance(why, VerificationError) and _packs(module, call)
    if by_hand and (held or call.lengths is None):
        what = "forward reads packed rows step by step: it was read as one whose rows are all full"
        with suppress(ExportError):
            yield _of_full_rows(module, call, held, options, what, flat=True)
    fewer = with_sizes_held(call, options.axes)
    if fewer is not None:
        axes, what = fewer
        yield (
            model,
            example,
            replace(
                options,
                axes=axes,
                remarks=(*options.remarks, f"forward goes other ways at other sizes; held: {what}"),
            ),
        )
    if not isinstance(model, RowByRow) and not has_real_batch(
        module, call
    ):  # one that only seems to have a batch: words and the letters of each
        for of_one in _row_by_row(model, example, options):
            yield from _keeping_free(call, *of_one)
    if full is not None and isinstance(full.failure, ExportError):  # to show full rows is no advice: it shows them
        raise full.failure from why
    if by_hand and not isinstance(why, ExportError):
        raise ExportError(_BY_HAND.format(type(model).__name__, line_of_exception(why), why)) from why
