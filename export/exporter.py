"""``export``: from a PyTorch module to one verified ONNX file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
from torch import nn

from rnncore.cells import Cell
from rnncore.conversion import convert_plain_layers
from rnncore.export.file import check_size, saving, weights_of, writable, write_entries, write_model
from rnncore.export.graph.cleanup import clean_up
from rnncore.export.int8.quantization import Quantization, check_form
from rnncore.export.lowering.context import carry_context
from rnncore.export.lowering.forms import FORMS, Form
from rnncore.export.lowering.fused import check_fusable
from rnncore.export.lowering.gather_output import add_gather_output
from rnncore.export.lowering.layer_states import splice_layer_states
from rnncore.export.lowering.portable import fold_constants, spell_out
from rnncore.export.lowering.splice import splice
from rnncore.export.lowering.steps import StepGraph, export_steps
from rnncore.export.report import ExportReport
from rnncore.export.signature import REPORT_KEY, precision_of, signature_of, write_metadata
from rnncore.export.targets import (
    CHOICES_KEY,
    TARGETS,
    Choice,
    Target,
    choices_json,
    choose_forms,
    form_text,
)
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.copying import copied, unchanged
from rnncore.export.tracing.example import Axes, Example, bind, check_dtypes, check_runs
from rnncore.export.tracing.one_step import is_one_step, over_time
from rnncore.export.tracing.operators import Operators, find_operators
from rnncore.export.tracing.other_ways import with_other_ways
from rnncore.export.tracing.rolling.program import RolledProgram, roll
from rnncore.export.tracing.source_lines import line_of_exception
from rnncore.export.tracing.states import find_states, states_of, with_starts
from rnncore.export.tracing.torch_onnx import OPSET
from rnncore.export.tracing.trace import TRACE_SIZES, Trace, trace
from rnncore.export.verification.cases import Case, Verdict
from rnncore.export.verification.golden import GoldenRecorder
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.repeatable import check_repeatable
from rnncore.export.verification.sizes import MOST_STEPS, broken_at
from rnncore.export.verification.structure import stride_of, why_chunks_differ, why_not_causal
from rnncore.export.verification.verifier import Verifier, sizes_of
from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import ExportError, InputError, NotStreamableError, VerificationError, raise_all
from rnncore.runtime.format.golden import GOLDEN_KEY
from rnncore.runtime.format.signature import BATCH, TIME, Signature


@only_own_errors(ExportError, "the export", line_of_exception)
def export(
    model: nn.Module,
    path: str | Path,
    example: Any,
    *,
    form: Form | Literal["portable", "auto"] = "loop",
    streaming: bool | Literal["auto"] = "auto",
    lengths: str | bool = "auto",
    verify: bool = True,
    axes: Axes | None = None,
    output_names: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    pick: bool = False,
    seed: int = 0,
    quantize: Literal["int8"] | None = None,
    accuracy_data: Sequence[Any] | None = None,
    target: Target | None = None,
    external_data: bool | None = None,
    states: Mapping[str, str] | None = None,
) -> ExportReport:
    """Write ``model`` as one ONNX file with explicit loops over time, free in batch and time, and verify it.

    The module may hold ``torch.nn.RNN``, ``GRU`` and ``LSTM`` as well as rnncore layers and any :class:`rnncore.Cell`;
    it is copied, never changed, and exported in eval mode.

    Args:
        model: any module that calls recurrent layers.
        path: file to write; its folder must exist.  Nothing is written unless everything succeeds.  A link is followed, and
            the file keeps its mode.
        example: a tensor, a tuple of positional or a dict of keyword arguments of ``model.forward``.  Its sizes are not
            baked in; its values tell the range of ids and the spread of floats that verification uses.
        form: "loop" (ONNX ``Loop``), "scan" (ONNX ``Scan``), "fused" (ONNX ``RNN``, ``GRU``, ``LSTM``: fastest at small
            sizes; only for cells that those operators compute exactly, an error for others), "portable" (a plain ``Scan``
            that onnxruntime, OpenVINO, onnx.reference and tract all run), or "auto": for each layer what ``target`` runs
            right and fastest; the report says what that is, and why.
        streaming: True: states become inputs and outputs of the file, an error if chunk by chunk would differ from the
            whole; False: batch only; "auto": stream if that is proved, else batch only with the reason in the file.
        lengths: "auto": the module's own input of that name, else a new input ``lengths`` for all recurrent layers if
            padded batches then give what each row gives alone; True: that, or an error; False: none; a name: that
            input of the module.
        verify: compare the file with the module at other sizes, ragged, twice, and in chunks.  Without it "auto" means
            False, because nothing was proved.
        axes: free axes of inputs where the default is wrong, such as ``{"x": ("time", "batch", None)}``.  The default is
            (batch, time, fixed, ...), without time for a vector of floats, and (batch,) for one number a sequence.
        output_names: names for the tensors the module returns, in order.
        metadata: further entries of the file's metadata, such as ``{"rnncore.tokenizer": ...}``.
        pick: let callers ask for some numbers of the only output [batch, time, size] instead of all of it, by index; a
            language model scores texts with that without copying its vocabulary out of the file.
        seed: of the random inputs used in tracing and verification.
        quantize: "int8": weights of matrix products and embeddings in 8 bits, in standard operators, see
            :mod:`rnncore.export.int8.rewriting`.  The file is a quarter of the size and faster where layers are wide (from about
            256 units).  It is verified in float32 first, then in int8.
        accuracy_data: calls of the module like ``example`` on which the report says what int8 costs; by default the
            example alone.
        target: with form="auto", the program that shall run the file: "onnxruntime" (default), "openvino", "tract", or
            "portable" for all of them.  docs/conformance.md shows what each can run.
        external_data: True: weights go to a second file, which the model needs beside it: ``path`` with a hash of them and
            ".data" behind it.  False: never; None: when they are more than one ONNX file holds, 1.9 GB.  Exporting to the
            same path again exchanges both as one, and then removes the second file of before.
        states: inputs that are states, each with the name of the output that it becomes, such as ``{"h": "output_1"}``;
            ``{}`` for none.  By default those are found that recurrent layers start from and end with.  A state is no
            input of the file's ``run``: it starts from zeros, and streams carry it.

    Returns:
        The report, which is also stored in the file.

    Raises:
        InputError: an argument does not fit.
        ExportError: the module cannot be traced or fixes an axis that must be free.
        NotStreamableError: streaming=True for a module that is not causal; names the layer.
        VerificationError: the file and the module disagree; the worst cases are listed and no file is left.
    """
    _check_choices(form, target)
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
    file = Path(path)
    writable(file, external=external_data is True)
    reference = copied(model).eval()
    with unchanged(reference):
        check_repeatable(reference, bind(reference, example))
        call = Example.of(reference, example, axes, lengths)
    if states:
        reference, call, states, output_names = _over_time(reference, call, states, output_names, axes, seed)
        axes = None
    exporter = _Exporter(reference, call, form, output_names, metadata or {}, pick, seed, axes)
    exporter.target = target or "onnxruntime"
    exporter.quantization = Quantization.of(quantize, reference, exporter.example, accuracy_data, axes, lengths)
    exporter.states = states
    exporter.external = check_size(reference, external_data, int8=exporter.quantization is not None)
    place = writable(file, external=exporter.external)
    with saving(place) as temporary:
        report = exporter.run(temporary, streaming, lengths, verify)
    weights = report.weights_path
    return replace(report, path=file, weights_path=None if weights is None else place.with_name(weights.name))


def _over_time(
    step: nn.Module,
    example: Example,
    states: Mapping[str, str],
    output_names: Sequence[str] | None,
    axes: Axes | None,
    seed: int,
) -> tuple[nn.Module, Example, Mapping[str, str] | None, Sequence[str] | None]:
    """A module of one step as one over time, its example, and the states and names of outputs that are left to say."""
    with unchanged(step):
        check_runs(example, step)
        found = find_axes(step, example, axes, seed)
    if not is_one_step(found, states):
        return step, example, states, output_names
    module, drawn = over_time(step, found, states, output_names)
    return module, Example.of(module, drawn, None, False), None, None


def _check_choices(form: str, target: str | None) -> None:
    forms = (*FORMS, "portable", "auto")
    problems = []
    if form not in forms:
        problems.append(f"form is {form!r}, expected one of {', '.join(map(repr, forms))}")
    if target is not None and target not in TARGETS:
        problems.append(f"target is {target!r}, expected one of {', '.join(map(repr, TARGETS))}")
    elif target is not None and form != "auto":
        problems.append(f"target is {target!r}, but only form='auto' chooses by target; form is {form!r}")
    raise_all(problems)


@dataclass
class _Plan:
    """What the file shall offer; narrowed when verification proves that something does not hold."""

    lift_lengths: bool
    stream: bool
    not_causal_because: str = ""
    states: dict[str, str] = field(default_factory=dict)
    must_lengths: bool = False
    dropped_lengths: bool = False


class _Exporter:
    def __init__(
        self,
        reference: nn.Module,
        example: Example,
        form: str,
        output_names: Sequence[str] | None,
        metadata: Mapping[str, str],
        pick: bool,
        seed: int,
        axes: Axes | None = None,
    ) -> None:
        self.reference = reference
        self.example = example
        self.form = form
        self.target: str = "onnxruntime"
        self.choices: dict[str, Choice] = {}
        self.output_names = output_names
        self.metadata = metadata
        self.pick = pick
        self.seed = seed
        self.states: Mapping[str, str] | None = None
        check_dtypes(reference, example)
        with unchanged(reference):
            check_runs(example, reference)
            self.example = find_axes(reference, example, axes, seed)
        self.module = convert_plain_layers(copied(reference))
        self._operators = find_operators(self.module, self.example, seed)
        self._rolled, self._why_not_rolled = _rolled(self.module, self.example, self._operators, seed)
        self._steps: dict[Cell, StepGraph] = {}
        self._trace: Trace | None = None
        self.quantization: Quantization | None = None
        self.external = False

    def run(self, path: Path, streaming: bool | str, lengths: str | bool, verify: bool) -> ExportReport:
        wanted = lengths is True or (lengths == "auto" and verify)
        plan = _Plan(lift_lengths=wanted, stream=streaming is True or (streaming == "auto" and verify))
        plan.must_lengths = lengths is True and self.example.lengths is None
        if not plan.stream:
            plan.not_causal_because = "exported with streaming=False" if streaming is False else "not verified"
        while True:
            signature, model = self._build(path, plan, streaming is True)
            example = self._example(plan)
            verdict = self._verify(path, example) if verify else Verdict(self.seed, 0.0)
            must_lengths = lengths is True and self.example.lengths is None
            if not self._narrow(plan, verdict, streaming is True, must_lengths):
                break
        report = verdict.to_dict() if verify else {}
        accuracy = None
        if self.quantization is not None:
            assert self._trace is not None
            report, accuracy = self.quantization.apply(
                model, path, signature, self.reference, example, verdict if verify else None
            )
        write_entries(path, self._findings(path, example, report, verify=verify))
        form = form_text(self.choices)
        weights = weights_of(path)
        size_bytes = sum(file.stat().st_size for file in (path, weights) if file is not None)
        return ExportReport(path, size_bytes, signature, form, report, accuracy, self.choices, weights)

    def _build(self, path: Path, plan: _Plan, must_stream: bool) -> tuple[Signature, ir.Model]:
        traced = self._traced(plan)
        if plan.stream:
            plan.not_causal_because = why_not_causal(traced) or sizes_of(traced.example, traced.limits).too_far
            if plan.not_causal_because:
                self._refuse_stream(plan, plan.not_causal_because, must_stream)
        model = traced.model.clone()
        no_lengths = traced.example.lengths is None and not plan.must_lengths
        contexts = carry_context(model) if plan.stream and no_lengths else []
        if contexts and plan.lift_lengths:
            # A row that ends within a chunk would leave its context there: rows of one length share a call instead.
            plan.lift_lengths, plan.dropped_lengths = False, True
            return self._build(path, plan, must_stream)
        plan.states = find_states(model.graph, self.states, traced.lengths) if plan.stream else {}
        calls = with_starts(traced.calls, model) if plan.stream else traced.calls
        states = states_of(model.graph, plan.states) + contexts
        states += splice_layer_states(model, traced.carried, lift=plan.stream)
        forms = {name: choice.form for name, choice in self.choices.items()}
        states += splice(model, calls, self._steps, form=forms, lift=plan.stream, lean=self.quantization is None)
        if "portable" in forms.values():
            fold_constants(model)
        spell_out(model)
        clean_up(model, self.module)
        signature = signature_of(
            model.graph,
            states,
            traced.lengths,
            causal=plan.stream,
            not_causal_because=plan.not_causal_because,
            ids=traced.ids,
            extents=traced.example.extents,
            output_shapes=traced.example.output_shapes,
        )
        signature = replace(signature, stride=stride_of(traced) if plan.stream else 1)
        if self.pick:
            pick = add_gather_output(model.graph, {state.output for state in states})
            signature = replace(signature, pick=pick)
        chosen = {} if self.form != "auto" else {CHOICES_KEY: choices_json(self.choices)}
        metadata = {**self.metadata, **chosen}
        write_metadata(model, signature, form_text(self.choices), precision_of(self.reference), metadata)
        write_model(model, path, external=self.external)
        return signature, model

    def _traced(self, plan: _Plan) -> Trace:
        if self._trace is None or self._trace.lengths_lifted != plan.lift_lengths:
            try:
                module = self.module if self._rolled is None else self._rolled
                operators = self._operators if self._rolled is None else Operators([])
                self._trace = trace(
                    module,
                    self.example,
                    operators,
                    lift_lengths=plan.lift_lengths,
                    output_names=self.output_names,
                    seed=self.seed,
                    opset=OPSET,
                )
            except ExportError as error:
                if self._why_not_rolled is None:
                    raise
                raise self._why_not_rolled from error
            # Without a layer that runs over the time axis of the inputs nothing takes them.
            plan.lift_lengths = self._trace.lengths_lifted
            self._trace.limits = with_other_ways(
                self._trace.limits, module, operators, self._trace.example, TRACE_SIZES, MOST_STEPS
            )
            calls = list(self._trace.calls.values())
            if self.quantization is not None:
                check_form(self.form, [call.name for call in calls])
            if self.form == "fused":
                check_fusable(calls)
            self.choices = choose_forms(calls, self.form, self.target, int8=self.quantization is not None)
            looped = [call for call in calls if self.choices[call.name].form != "fused"]
            self._steps = export_steps(looped, OPSET) if looped else {}
        return self._trace

    def _example(self, plan: _Plan) -> Example:
        """The example as the file takes it: what is a state is no input any more."""
        assert self._trace is not None
        outputs = [str(value.name) for value in self._trace.model.graph.outputs]
        return replace(self._trace.example, states={name: outputs.index(o) for name, o in plan.states.items()})

    def _verify(self, path: Path, example: Example) -> Verdict:
        assert self._trace is not None
        limits = self._trace.limits
        verifier = Verifier(
            Reference(self.reference, example), example, precision_of(self.reference), self.seed + 1, limits
        )
        for guard in verifier.sizes.unchecked:
            raise ExportError(
                f"forward asks at {guard.where} whether {guard.text}, which turns beyond the {MOST_STEPS} steps and the batches "
                f"that an export checks: {ONE_WAY}"
            )
        return verifier.verify(path)

    def _findings(self, path: Path, example: Example, report: dict[str, Any], *, verify: bool) -> dict[str, str]:
        """The metadata entries that tell what was found out about the finished file."""
        entries = {REPORT_KEY: json.dumps(report, separators=(",", ":"))}
        if verify:
            assert self._trace is not None
            recorder = GoldenRecorder(
                Reference(self.reference, example),
                example,
                precision_of(self.reference),
                self.seed + 2,
                self._trace.limits,
            )
            entries[GOLDEN_KEY] = recorder.record(path, int8=self.quantization is not None).to_json()
        return entries

    def _narrow(self, plan: _Plan, verdict: Verdict, must_stream: bool, must_lengths: bool) -> bool:
        """Take from the plan what verification disproved; True if the file must be built again."""
        changed = False
        self._refuse_other_ways(verdict.failures("whole"))
        mixed = verdict.failures("rows")
        if mixed:
            raise VerificationError(_message("a row of a batch differs from the row alone: forward mixes rows", mixed))
        if not plan.lift_lengths and verdict.failures("ragged"):
            own = self.example.lengths
            way_out = "" if own is None else UNUSED_LENGTHS.format(name=own)
            raise VerificationError(_message(PADDING_SHOWS + way_out, verdict.failures("ragged")))
        ragged = verdict.failures("ragged")
        if ragged:
            if must_lengths:
                raise VerificationError(_message("a padded batch differs from each sequence alone", ragged))
            # Streams that moved together were padded too: how the file without lengths streams is for the next round.
            plan.lift_lengths = False
            return True
        streams = verdict.failures("stream")
        if streams:
            assert self._trace is not None
            self._refuse_stream(plan, why_chunks_differ(self._trace, streams[0]), must_stream)
            changed = True
        return changed

    def _refuse_other_ways(self, wrong: Sequence[Case]) -> None:
        """Raise VerificationError for whole batches that disagree, and say which line asks for a size, if one does."""
        if not wrong:
            return
        assert self._trace is not None
        guards = self._trace.limits.guards
        asked = [g for case in wrong for g in broken_at(guards, {BATCH: case.batch, TIME: case.time}) if g.where]
        message = _message("the exported file and the PyTorch module disagree", wrong)
        if asked:
            message += f"\n  forward asks at {asked[0].where} whether {asked[0].text}: {ONE_WAY}"
        raise VerificationError(message)

    def _refuse_stream(self, plan: _Plan, reason: str, must_stream: bool) -> None:
        if must_stream:
            raise NotStreamableError(f"streaming=True, but {reason}")
        plan.stream, plan.not_causal_because = False, reason
        plan.lift_lengths, plan.dropped_lengths = plan.lift_lengths or plan.dropped_lengths, False


ONE_WAY = (
    "a file goes one way at every size, that of the sizes it was traced at; write this with tensor operations that hold for "
    "all sizes, or export a module for each way"
)
PADDING_SHOWS = (
    "a padded batch is not what PyTorch answers, or not what each row answers alone (padded steps that are pooled, averaged or "
    "normalised, say: mask them by the lengths)"
)
UNUSED_LENGTHS = "; if forward does not cut its sequences by '{name}', lengths=False makes that an input like others"


def _rolled(
    module: nn.Module, example: Example, operators: Operators, seed: int
) -> tuple[RolledProgram | None, ExportError | None]:
    """The module with its loops over time rolled, if it has any; or why these cannot be rolled."""
    try:
        return roll(module, example, operators, seed), None
    except ExportError as error:
        return None, error


def _message(title: str, cases: Sequence[Case]) -> str:
    return title + ":\n" + "\n".join(f"  - {case}" for case in cases[:6])
