"""``export``: from a PyTorch module to one verified ONNX file.

Each stage takes what the last one gave: captured -> traced -> planned -> built -> proved -> written.  What is proved not to
hold is taken from the plan, and the file is built again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from rnncore.export.file import check_size, named, saving, weights_of, writable, write_entries, write_model
from rnncore.export.form_advice import advice
from rnncore.export.int8.quantization import Quantization
from rnncore.export.lowering.forms import Form
from rnncore.export.narrowing import narrowed_lengths
from rnncore.export.options import Options
from rnncore.export.other_readings import left_out, other_readings, streaming_readings
from rnncore.export.plan import Plan
from rnncore.export.progress import Progress
from rnncore.export.report import ExportReport
from rnncore.export.signature import REPORT_KEY
from rnncore.export.single_step import ways_to_read
from rnncore.export.stages import Built, Captured, Planned, Traced
from rnncore.export.targets import Target, form_text
from rnncore.export.tracing.devices import NeedsOtherDevice, asking_for_devices, brought_here, devices_taken_as_cpu
from rnncore.export.tracing.example import Axes
from rnncore.export.tracing.packed_input import without_packing
from rnncore.export.tracing.source_lines import line_of_exception
from rnncore.export.tracing.surroundings import in_turn, undisturbed
from rnncore.export.tracing.unscripted import in_python
from rnncore.export.verification.cases import Verdict
from rnncore.export.verification.golden import GoldenRecorder
from rnncore.export.verification.judging import Int8Judge, Judge
from rnncore.export.verification.verifier import Verifier
from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import ExportError, NotStreamableError
from rnncore.runtime.format.golden import GOLDEN_KEY


@only_own_errors(ExportError, "the export", line_of_exception)
@in_turn()
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
    output_names: Sequence[str | None] | None = None,
    metadata: Mapping[str, str] | None = None,
    pick: bool = False,
    seed: int = 0,
    quantize: Literal["int8"] | None = None,
    accuracy_data: Sequence[Any] | None = None,
    target: Target | None = None,
    external_data: bool | None = None,
    states: Mapping[str, str] | None = None,
    branches: bool = True,
) -> ExportReport:
    """Write ``model`` as one ONNX file with explicit loops over time, free in batch and time, and verify it.

    The module, a copy of it, is exported in eval mode, without autocast, on the CPU, wherever it is and whatever device its
    ``forward`` asks for.  What takes over two seconds shows progress.  Exports of several threads wait for each other.

    Args:
        model: any module that calls recurrent layers.
        path: file to write; its folder must exist.  Nothing is written unless everything succeeds.  A link is followed, and
            the file keeps its mode.
        example: a tensor, a tuple of positional or a dict of keyword arguments of ``model.forward``, of any sizes (of a
            ``PackedSequence`` the file takes rows and lengths).  Values tell the range of ids and the spread of floats.
        form: "loop" (ONNX ``Loop``), "scan" (ONNX ``Scan``), "fused" (ONNX ``RNN``, ``GRU``, ``LSTM``: fastest at small
            sizes; only for cells that those operators compute exactly, an error for others), "portable" (a plain ``Scan``
            that onnxruntime, OpenVINO, onnx.reference and tract all run), or "auto": for each layer what ``target`` runs
            right and fastest; the report says what that is, and why.  For onnxruntime and plain LSTM and GRU cells of up to
            some 700 units that is the fused operator with a ``Scan`` beside it for NaN, which share their weights.
        streaming: True: states become inputs and outputs of the file, an error if chunk by chunk would differ from the
            whole; False: batch only; "auto": stream if that is proved, else batch only with the reason in the file.
        lengths: "auto": the module's own input of that name, else a new input ``lengths`` for all recurrent layers if
            padded batches then give what each row gives alone; True: that, or an error; False: none; a name: that
            input of the module.
        verify: compare the file with the module at other sizes, ragged, twice, and in chunks.  Without it "auto" is False.
        axes: free axes of inputs where the default is wrong, such as ``{"x": ("time", "batch", None)}``.  The default is
            (batch, time, fixed, ...), without time for a vector of floats, and (batch,) for one number a sequence.
        output_names: names for the tensors the module returns, in order; None leaves one out, such as a loss.
        metadata: further entries of the metadata.
        pick: let callers ask for some numbers of the only output [batch, time, size] by index, in place of all of it.
        seed: of the random inputs used in tracing and verification.
        quantize: "int8": weights of matrix products and embeddings in 8 bits, see :mod:`rnncore.export.int8.rewriting`: a quarter
            of the size, faster where layers are wide.  It is verified in float32 first, then in int8.
        accuracy_data: calls like ``example`` on which the report says what int8 costs; by default the example alone.
        target: with form="auto", what shall run the file: "onnxruntime" (default), "openvino", "tract" or "portable" for all.
        external_data: True: weights go to a second file beside it: ``path`` with a hash of them and ".data" behind it; arrays of
            less than 1 KiB stay inside.  False: never; None: when they are more than one ONNX file holds, 1.9 GB.  Exporting to
            the same path again exchanges both as one, and then removes the second file of before.
        states: inputs that are states, each with the output that it becomes, such as ``{"h": "output_1"}``; ``{}`` for none.
            By default those that recurrent layers start from and end with, and those of a module of one step that are zeros
            in the example and come back in their shape.  ``run`` starts them from zeros, and streams carry them.
        branches: False: each layer of form "loop" or "scan" is one loop and no ``If``, for who reads the file or runs it on
            what has none; with ``lengths=False`` it is without masks, too.  The same answers, slower: by default a layer
            stands there once for each way of calling (one step, one row, many rows, rows of several lengths).

    Returns the report, which is also stored in the file.

    Raises:
        InputError: an argument does not fit.
        ExportError: the module cannot be traced or fixes an axis that must be free.
        NotStreamableError: streaming=True for a module that is not causal; names the layer.
        VerificationError: the file and the module disagree; the worst cases are listed and no file is left.
    """
    model = in_python(model, example)
    model, example, accuracy_data = map(brought_here, (*without_packing(model, example), accuracy_data))
    options = Options(
        form=form,
        streaming=streaming,
        lengths=lengths,
        verify=verify,
        axes=axes,
        output_names=output_names,
        metadata=metadata,
        pick=pick,
        seed=seed,
        quantize=quantize,
        accuracy_data=accuracy_data,
        target=target,
        external_data=external_data,
        states=states,
        branches=branches,
    )
    writable(file := named(path), external=external_data is True)
    with undisturbed(model), Progress(f"export of {file.name}") as progress:
        with suppress(NeedsOtherDevice), asking_for_devices():
            return _best(model, example, options, file, progress)
        with devices_taken_as_cpu():
            return _best(model, example, options, file, progress)


def _best(model: nn.Module, example: Any, options: Options, file: Path, progress: Progress) -> ExportReport:
    *better, last = ways_to_read(model, example, options)
    for given in better:
        with suppress(ExportError, NotStreamableError):
            return _exported(*given, file, progress)
    try:
        report = _exported(*last, file, progress)
    except Exception as error:
        for given in other_readings(error, *last):
            with left_out(given[0]):
                report, last = _exported(*given, file, progress), given
                break
        else:
            raise
    for given in streaming_readings(report.signature, *last):
        with left_out():
            return _exported(*given, file, progress)
    return report


def _exported(model: nn.Module, example: Any, options: Options, file: Path, progress: Progress) -> ExportReport:
    progress.now("looking for axes, operators and loops")
    captured = Captured.of(model, example, options)
    quantization = Quantization.of(
        options.quantize, captured.reference, captured.example, options.accuracy_data, options.axes, options.lengths
    )
    external = check_size(captured.reference, options.external_data, int8=options.int8)
    place = writable(file, external=external)
    with saving(place) as temporary:
        proved = _proved(captured, options, temporary, progress, external=external)
        progress.now("recording golden cases" if options.verify else "writing")
        line = advice(captured, options, proved.built, temporary) if progress.shown else ""
        report = replace(_written(captured, options, proved, quantization, temporary), advice=line)
    weights = report.weights_path
    return replace(report, path=file, weights_path=None if weights is None else place.with_name(weights.name))


@dataclass(frozen=True)
class _Proved:
    """A built file and what verification found about it, None without verification."""

    built: Built
    verdict: Verdict | None


def _proved(captured: Captured, options: Options, path: Path, progress: Progress, *, external: bool) -> _Proved:
    """The first file that holds what its plan says, at ``path``."""
    plan = Plan.of(options, captured.example.lengths, captured.example.names)
    known: Sequence[Traced] = ()
    remarks: list[str] = [*captured.remarks]
    while True:
        progress.now("tracing")
        planned = Planned.of(captured, options, plan, known)
        progress.now("writing loops")
        built = Built.of(captured, options, planned)
        write_model(built.model.clone(), path, external=external)
        if not options.verify:
            return _Proved(built, None)
        progress.now("comparing the file with PyTorch")
        verdict = _verdict(captured, options, built, path)
        verdict.remarks[:0] = [*planned.remarks, *remarks]
        narrower = narrowed_lengths(planned.traced, verdict)
        if narrower is not None:
            remarks.append(narrower.remark)
            plan = (
                planned.plan
                if narrower.forever or not planned.plan.stream
                else planned.plan.batch_only(narrower.remark)
            )
            known = (narrower.traced,)
            continue
        plan, known = planned.plan.narrowed(planned.traced.trace, verdict), planned.known
        if plan == planned.plan:
            return _Proved(built, verdict)


def _verdict(captured: Captured, options: Options, built: Built, path: Path) -> Verdict:
    judge = Judge.of(captured.precision)
    verifier = Verifier(*built.asked(captured), judge, options.seed + 1, built.planned.traced.trace.limits)
    return verifier.verify(path)


def _written(
    captured: Captured, options: Options, proved: _Proved, quantization: Quantization | None, path: Path
) -> ExportReport:
    """The finished file at ``path``: in int8 if that is wanted, with its report and golden cases in it."""
    built, verdict = proved.built, proved.verdict
    report, accuracy = {} if verdict is None else verdict.to_dict(), None
    if quantization is not None:
        report, accuracy = quantization.apply(
            built.model.clone(), path, built.signature, captured.reference, built.example, verdict
        )
    entries = {REPORT_KEY: json.dumps(report, separators=(",", ":"))}
    if verdict is not None:
        judge = Int8Judge() if options.int8 else Judge.of(captured.precision)
        recorder = GoldenRecorder(*built.asked(captured), judge, options.seed + 2, built.planned.traced.trace.limits)
        entries[GOLDEN_KEY] = recorder.record(path).to_json()
    write_entries(path, entries)
    weights, choices = weights_of(path), dict(built.planned.traced.choices)
    size = sum(file.stat().st_size for file in (path, weights) if file is not None)
    facts = built.signature, form_text(choices), report, accuracy, choices, weights
    return ExportReport(path, size, *facts, branches=options.branches)
