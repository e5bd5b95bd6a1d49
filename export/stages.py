"""What each stage of an export gives to the next: captured -> traced -> planned -> built.

All are values: a stage reads what came before it and makes something new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
from torch import nn

from rnncore.cells import Cell
from rnncore.export.graph.cleanup import clean_up
from rnncore.export.graph.run_overlap import PLAIN_RUNS
from rnncore.export.graph.shorter import shorten_traced, shorten_with_loops
from rnncore.export.graph.simplify import leave_large_to_softplus
from rnncore.export.graph.softplus import branch_softplus
from rnncore.export.int8.quantization import check_form
from rnncore.export.lowering.context import carry_context
from rnncore.export.lowering.cut_to_longest import cut_to_longest, forget_sizes
from rnncore.export.lowering.earlier_cuts import cut_earlier
from rnncore.export.lowering.forms import PLAIN
from rnncore.export.lowering.fused import check_fusable
from rnncore.export.lowering.gather_output import add_gather_output
from rnncore.export.lowering.layer_states import splice_layer_states
from rnncore.export.lowering.portable import fold_constants, spell_out
from rnncore.export.lowering.positions import most_steps
from rnncore.export.lowering.shared_weights import share_weights
from rnncore.export.lowering.splice import splice
from rnncore.export.lowering.split_loops import AGAIN, split_loops
from rnncore.export.lowering.steps import StepGraph, export_steps
from rnncore.export.lowering.unique_names import make_names_unique
from rnncore.export.options import Options
from rnncore.export.plan import Plan, far_end, refuse_unchecked
from rnncore.export.signature import precision_of, signature_of, write_metadata
from rnncore.export.targets import ASKED, CHOICES_KEY, Choice, choices_json, choose_forms, form_text
from rnncore.export.tracing.array_reads import left_out
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.both_ways import with_both_ways
from rnncore.export.tracing.chosen_outputs import names_with_gaps
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Axes, Example, Extent, check_dtypes, check_runs
from rnncore.export.tracing.held_sizes import with_another_time, with_sizes_held
from rnncore.export.tracing.operators import Operators, find_operators
from rnncore.export.tracing.other_ways import steps_of_own_way, with_other_ways
from rnncore.export.tracing.own_layers import with_own_layers
from rnncore.export.tracing.own_steps.search import by_own_steps
from rnncore.export.tracing.recorder import Call
from rnncore.export.tracing.rolling.program import roll
from rnncore.export.tracing.rows import any_runs_on
from rnncore.export.tracing.squeezes import keeping_axes
from rnncore.export.tracing.starting_states import starts_of
from rnncore.export.tracing.states import find_states, states_of, with_starts
from rnncore.export.tracing.trace import Trace, trace
from rnncore.export.tracing.unlifted import without_lifted_lengths
from rnncore.export.verification.first_call import check_weights_stay
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.repeatable import check_carried, check_repeatable
from rnncore.export.verification.sizes import MOST_STEPS, SHORT_STREAM
from rnncore.export.verification.structure import runs_of, why_not_causal
from rnncore.export.verification.verifier import sizes_of
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError, InputError
from rnncore.runtime.format.axes import TIME
from rnncore.runtime.format.signature import Signature, StateSpec


@dataclass(frozen=True)
class Captured:
    """What all later stages start from.

    reference: a copy of the user's module in eval mode, which says what the file must answer.  module: another one, with
    plain layers converted; its parameters name the weights.  program: what is traced, ``module`` or the same with its
    loops over time rolled.  operators: answers to calls of torch's recurrent functions in ``program``.  why_not_rolled: why
    loops over time are left in it; None if there are none.  why_not_as_it_is: why the loops of the module itself cannot be
    rolled, where ``program`` has others.
    """

    reference: nn.Module
    module: nn.Module
    program: nn.Module
    example: Example
    operators: Operators
    why_not_rolled: ExportError | None = None
    why_not_as_it_is: ExportError | None = None
    remarks: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """The dtype that the module computes in, such as "float32"."""
        return precision_of(self.reference, [own.value for own in self.example.inputs])

    @classmethod
    def of(cls, module: nn.Module, example: Any, options: Options) -> Captured:
        """Run a copy of ``module`` on its example, and on others like it.

        Raises:
            InputError: the example does not fit the module's forward.
            ExportError: the module fails on it, answers differently each time, or its weights depend on the inputs.
        """
        reference = copied(module).eval()
        with unchanged(reference):
            kept = check_repeatable(reference, bind(reference, example))
        check_weights_stay(module, reference, bind(reference, example))
        with unchanged(reference):  # each on its own: what one call leaves in an attribute may not fit the next
            call = Example.of(reference, example, options.axes, options.lengths)
        check_dtypes(reference, call)
        with unchanged(reference):
            arrays = left_out(check_runs(call, reference))
        reference, kept_axes = keeping_axes(reference, call, said=options.axes is not None)
        remarks = [*options.remarks, *arrays, *kept_axes]
        with unchanged(reference):
            call = find_axes(reference, call, options.axes, options.seed)
        if kept:
            check_carried(reference, call.in_parts(reference), kept)
        found = cls._of_call(reference, call, options)
        found = replace(found, remarks=(*remarks, *found.remarks))
        if found.why_not_rolled is None:
            return found
        for axes, what in with_another_time(call, options.axes):
            other = cls._of_axes(reference, example, options, axes)
            if other is not None:
                return replace(other, remarks=(*remarks, what))
        # A loop over time carries values whose sizes it must know: of images whose height and width are free it can know none.
        held = with_sizes_held(call, options.axes)
        other = None if held is None else cls._of_axes(reference, example, options, held[0])
        if held is not None and other is not None:
            what = f"a loop over time holds the sizes that it carries: {held[1]}"
            return replace(other, remarks=(*remarks, what))
        return found

    @classmethod
    def _of_axes(cls, reference: nn.Module, example: Any, options: Options, axes: Axes) -> Captured | None:
        """The same with these axes, None if it cannot be rolled so either."""
        with suppress(ExportError, InputError), unchanged(reference):
            call = Example.of(reference, example, axes, options.lengths)
            other = cls._of_call(reference, find_axes(reference, call, axes, options.seed), options)
            return other if other.why_not_rolled is None else None
        return None

    @classmethod
    def _of_call(cls, reference: nn.Module, call: Example, options: Options) -> Captured:
        plain = with_own_layers(by_own_steps(reference, options.own_steps), call)
        operators = find_operators(plain, call, options.seed)
        try:
            rolled = roll(plain, call, operators, options.seed, always=options.written_out)
        except ExportError as reason:  # matters only if torch cannot trace the loops as they are
            both = cls._of_both_ways(reference, plain, call, options)
            if both is not None:
                return replace(both, why_not_as_it_is=reason)
            return cls(reference, plain, plain, call, operators, reason)
        if rolled is None:
            return cls(reference, plain, plain, call, operators)
        there = " and ".join(f"'{name}'" for name in rolled.left_out)
        what = f"output {there} is there at some values only, none of the example, and left out"
        return cls(reference, plain, rolled, call, Operators([]), remarks=(what,) if there else ())

    @classmethod
    def _of_both_ways(cls, reference: nn.Module, plain: nn.Module, call: Example, options: Options) -> Captured | None:
        """With steps that go both ways where their number decides between these; None if they cannot be rolled so either."""
        both = with_both_ways(plain)
        if both is None:
            return None
        try:
            rolled = roll(both, call, find_operators(both, call, options.seed), options.seed)
        except Exception as failure:  # what a step does not take, the module or a layer may say in words of its own
            pass_on_interruption(failure)
            return None
        if rolled is None:
            return None
        what = "the number of a step decides between ways to go: each step goes both, and chooses"
        return cls(reference, both, rolled, call, Operators([]), remarks=(what,))


@dataclass(frozen=True)
class Traced:
    """A graph with a placeholder for each recurrent call, the form that each shall have, and the step of each cell."""

    trace: Trace
    choices: Mapping[str, Choice]
    steps: Mapping[Cell, StepGraph]

    @classmethod
    def of(cls, captured: Captured, options: Options, *, lift_lengths: bool) -> Traced:
        """Trace the module; ``lift_lengths``: its recurrent layers take the lengths of the rows.

        Raises:
            ExportError: torch cannot trace it, it fixes an axis that must be free, or the form is none for its cells.
        """
        program, operators = captured.program, captured.operators
        asked: dict[str, Any] = {
            "lift_lengths": lift_lengths,
            "output_names": options.output_names,
            "seed": options.seed,
        }
        try:
            found = trace(program, captured.example, operators, **asked)
        except ExportError as error:
            reason = captured.why_not_rolled or captured.why_not_as_it_is
            if reason is None:
                raise
            raise reason from error
        steps = steps_of_own_way(found, captured.example)
        if steps is not None:  # that of the sizes chosen here is another than that of the user's example
            with suppress(ExportError):
                found = trace(program, replace(captured.example, trace_steps=steps), operators, **asked)
        limits = with_other_ways(found.limits, program, operators, found.example, found.sizes, MOST_STEPS)
        return cls._of_trace(replace(found, limits=limits), options, {})

    @classmethod
    def _of_trace(cls, found: Trace, options: Options, known: Mapping[Cell, StepGraph]) -> Traced:
        calls = list(found.calls.values())
        if options.int8:
            check_form(options.form, [call.name for call in calls])
        if options.form == "fused":
            check_fusable(calls)
        choices = choose_forms(
            calls, options.form, options.target or "onnxruntime", int8=options.int8, branches=options.branches
        )
        looped = [call for call in calls if choices[call.name].form != "fused"]
        if any(call.cell not in known for call in looped):
            known = export_steps(looped)
        return cls(found, choices, known)

    def with_most_steps(self, most: int | None) -> Traced:
        """The same, which takes ``most`` steps at most, because its positions end there; None if they do not."""
        example = self.trace.example
        extent = example.extents.get(TIME, Extent(TIME))
        if most is None or (extent.maximum is not None and extent.maximum <= most):
            return self
        extents = {**example.extents, TIME: replace(extent, maximum=most)}
        return replace(self, trace=replace(self.trace, example=replace(example, extents=extents)))

    def with_calls(self, more: Mapping[str, Call]) -> Traced:
        """The same with second loops of layers, in the form of the first."""
        choices = {name: Choice(self.choices[name.removesuffix(AGAIN)].form, ASKED) for name in more}
        found = replace(self.trace, calls={**self.trace.calls, **more})
        return replace(self, trace=found, choices={**self.choices, **choices}) if more else self

    def without_lengths(self, options: Options) -> Traced | None:
        """The same without lengths that were lifted; None if only a trace of its own can tell."""
        found = without_lifted_lengths(self.trace)
        return None if found is None else self._of_trace(found, options, self.steps)


@dataclass(frozen=True)
class Planned:
    """What the file shall offer, and the graph to make it of, in which what looks back without a loop carries ``contexts``.

    known: all traces that were made on the way, ``traced`` among them.  most_steps: so many a sequence has at most, because
    a table of positions ends there, or what was traced; None if neither does.  remarks: what to say of it.
    """

    plan: Plan
    traced: Traced
    model: ir.Model
    contexts: Sequence[StateSpec]
    known: Sequence[Traced]
    most_steps: int | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, captured: Captured, options: Options, plan: Plan, known: Sequence[Traced]) -> Planned:
        """``plan`` as far as the structure of the module allows it; ``known``: traced before, with lengths and without.

        Raises:
            NotStreamableError: it does not stream, and must.
            ExportError: it goes another way for batches so large that nobody can check them.
        """
        traced = next((one for one in known if one.trace.lengths_lifted == plan.lift_lengths), None)
        if traced is None:
            without = known[-1].without_lengths(options) if known and not plan.lift_lengths else None
            traced = without or Traced.of(captured, options, lift_lengths=plan.lift_lengths)
            known = [*known, traced]
        most = most_steps(traced.trace.model)
        remarks: tuple[str, ...] = ()
        traced = traced.with_most_steps(most)
        far = far_end(traced.trace, sizes_of(traced.trace.example, traced.trace.limits))
        if far is not None:
            most, remarks = far[0], (far[1],)
            traced = traced.with_most_steps(most)
        if options.verify:
            refuse_unchecked(sizes_of(traced.trace.example, traced.trace.limits))
        found = traced.trace
        plan = replace(plan, lift_lengths=found.lengths_lifted)  # nothing takes them without a layer over the time axis
        names = names_with_gaps(captured.reference, [str(value.name) for value in found.model.graph.outputs])
        why_not = (
            (
                why_not_causal(found, must_lengths=plan.must_lengths, names=names)
                or sizes_of(found.example, found.limits).too_far
            )
            if plan.stream
            else ""
        )
        if plan.stream and most is not None and most < SHORT_STREAM:
            why_not = (
                why_not or f"its positions end after {most} steps, and a stream of {SHORT_STREAM} cannot be checked"
            )
        if why_not:
            plan = plan.batch_only(why_not)
        if not plan.stream:
            return cls(plan, traced, found.model, [], known, remarks=remarks)
        model = found.model.clone()
        pairs = find_states(model.graph, options.states, found.lengths)
        rows_end = plan.must_lengths or found.example.lengths is not None
        runs = runs_of(found) or PLAIN_RUNS
        moved = cut_earlier(model, found.calls)
        second = split_loops(model, found.calls, runs)
        calls = {**found.calls, **second}
        contexts = carry_context(model, calls, pairs, found.lengths, rows_end=rows_end, runs=runs)
        unmeasured = bool(second) or (not plan.must_lengths and any_runs_on(found.model))
        if (contexts.one_length or unmeasured) and plan.lift_lengths:
            # A row that ends within a chunk would leave its context there, or the state of a loop that knows no lengths: rows of
            # one length share a call instead.
            return cls.of(captured, options, replace(plan, lift_lengths=False, dropped_lengths=True), known)
        plan = replace(plan, rewritten=bool(contexts.specs or second or moved))
        return cls(plan, traced.with_calls(second), model, contexts.specs, known, most, remarks)


@dataclass(frozen=True)
class Built:
    """The graph of the file; ``example`` is as the file takes it: what is a state is no input any more."""

    planned: Planned
    model: ir.Model
    signature: Signature
    example: Example

    @classmethod
    def of(cls, captured: Captured, options: Options, planned: Planned) -> Built:
        """Put a loop in place of each placeholder, make states inputs and outputs, and say so in the metadata.

        Raises:
            InputError: ``states`` names what is no state.
            ExportError: an input or output has no batch axis.
        """
        plan, choices, found = planned.plan, planned.traced.choices, planned.traced.trace
        model = planned.model.clone()
        pairs = find_states(model.graph, options.states, found.lengths) if plan.stream else {}
        calls = with_starts(found.calls, model) if plan.stream else found.calls
        starts = starts_of([own for own in found.example.inputs if own.name in pairs])
        cut_to_longest(model.graph, longest := plan.cuts(found))
        states = [*states_of(model.graph, pairs, starts), *planned.contexts]
        states += splice_layer_states(model, found.carried, lift=plan.stream)
        shorten_traced(model.graph)
        forms = {
            name: choice.form if options.branches else PLAIN.get(choice.form, choice.form)
            for name, choice in choices.items()
        }
        states += splice(model, calls, planned.traced.steps, form=forms, lift=plan.stream, lean=not options.int8)
        shorten_with_loops(model.graph)
        if "portable" in forms.values():
            fold_constants(model)
        else:
            leave_large_to_softplus(model.graph)
            if options.branches:
                branch_softplus(model.graph)
        spell_out(model)
        clean_up(model, captured.module)
        share_weights(model)
        because = plan.not_causal_because + (options.step_note if plan.not_causal_because else "")
        signature = signature_of(model.graph, states, found, causal=plan.stream, not_causal_because=because)
        runs = (runs_of(found) if plan.stream else None) or PLAIN_RUNS
        signature = replace(
            signature,
            stride=runs.stride,
            overlap=runs.steps,
            most_steps=planned.most_steps,
            rows_together=bool(longest),
        )
        forget_sizes(model.graph, longest)
        if options.pick:
            signature = replace(signature, pick=add_gather_output(model.graph, {state.output for state in states}))
        chosen = {CHOICES_KEY: choices_json(choices)} if options.form == "auto" else {}
        metadata = {**(options.metadata or {}), **chosen}
        write_metadata(model, signature, form_text(choices), captured.precision, metadata)
        make_names_unique(model.graph)
        outputs = [str(value.name) for value in found.model.graph.outputs]
        example = replace(found.example, states={name: outputs.index(output) for name, output in pairs.items()})
        return cls(planned, model, signature, example)

    def asked(self, captured: Captured) -> tuple[Reference, Example]:
        """Who says what the file must answer, and about what."""
        return Reference(captured.reference, self.example), self.example
