"""Prove a file once more, without PyTorch: put its golden questions to it and compare the answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import ModelFileError, RnncoreError
from rnncore.runtime.format.golden import GOLDEN_KEY, Golden, GoldenCase
from rnncore.runtime.format.limits import DEFAULT_LIMITS, Limits
from rnncore.runtime.format.signature import Signature, TensorSpec
from rnncore.runtime.isolation import in_own_process
from rnncore.runtime.model import Model, load
from rnncore.runtime.session.providers import Providers, read_providers
from rnncore.runtime.signing import Key, read_key
from rnncore.runtime.tensors.specs import Slot

_MOST_CHUNKS = 100_000

Answer = Callable[[GoldenCase], Mapping[str, Array]]
"""Puts the inputs of a case to a model: whole outputs by name, with a batch axis, zero beyond the lengths."""

_HEAD = ("kind", "batch", "time", "max abs error", "rel error", "result", "detail")


@dataclass(frozen=True)
class Case:
    """One comparison of a file with PyTorch's answers: a golden case run again or, at export, with the module itself.

    kind: "whole", "rows" (of a batch, each alone), "ragged" or "stream".  max_abs is the largest difference, max_rel the
    same as a part of the largest expected value (at least 1).  note: why it stands as it does, such as the error message
    of a backend that could not run it.
    """

    kind: str
    batch: int
    time: int
    detail: str
    max_abs: float
    max_rel: float
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} (batch {self.batch}, time {self.time}{', ' + self.detail if self.detail else ''})"
        return f"{what}: max error {self.max_abs:.2g}" + (f", {self.note}" if self.note else "")


@dataclass(frozen=True)
class VerifyReport:
    """What :func:`verify` found.

    backend: what ran the file.  tolerance and measure: see :class:`rnncore.runtime.format.golden.Golden`; ``max_rel`` of
    the cases is by that measure.  left_out: cases that the export did not keep, and why.
    """

    name: str
    backend: str
    tolerance: float
    cases: tuple[Case, ...]
    left_out: tuple[str, ...] = ()
    measure: str = "max"

    @property
    def passed(self) -> bool:
        """Whether every case agrees with PyTorch."""
        return all(case.passed for case in self.cases)

    @property
    def max_error(self) -> float:
        """Largest absolute error over all cases."""
        return max((case.max_abs for case in self.cases), default=0.0)

    def __str__(self) -> str:
        failed = sum(not case.passed for case in self.cases)
        verdict = f"{failed} of {len(self.cases)} cases FAILED" if failed else f"all {len(self.cases)} cases passed"
        reasons = list(dict.fromkeys(case.note for case in self.cases if case.note))
        rows = [_HEAD, *(_row(case, reasons) for case in self.cases)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        notes = [f"[{i}] {reason}" for i, reason in enumerate(reasons, 1)]
        notes += [f"not kept at export: {reason}" for reason in self.left_out]
        head = f"{self.name} on {self.backend}, tolerance {self.tolerance:g} {self.measure}: {verdict}"
        return "\n".join([head, *lines, *notes])


@only_own_errors(ModelFileError, "verifying the file")
def verify(
    source: str | os.PathLike[str] | bytes | Model,
    *,
    limits: Limits = DEFAULT_LIMITS,
    isolated: bool = False,
    public_key: Key | None = None,
    providers: Providers | None = None,
) -> VerifyReport:
    """Run the golden cases in a model file and compare with what PyTorch answered at export.

    source: what :func:`rnncore.runtime.load` takes, or a loaded model.
    limits: what the file may ask for, as in :func:`rnncore.runtime.load`; a loaded model has its own.
    isolated: load and run it in a process of its own, which ends after ``limits.verify_s`` and cannot take more memory than
        ``limits.verify_bytes``: for a file of somebody unknown, since a small graph may compute for ever.

    public_key: who must have signed the file, as in :func:`rnncore.runtime.load`; a loaded model was checked there.
    providers: what computes it, as in :func:`rnncore.runtime.load`; a loaded model has its own.

    That all cases pass says that the file is whole and runs right here.  It does not say who made it: whoever changes a file
    can change its cases and its fingerprint too.  :func:`rnncore.runtime.sign` is for that.

    Needs neither PyTorch nor onnx.  Whole batches, ragged batches if the file takes lengths, and a stream in chunks if
    it is causal.  A mismatch is in the report (``report.passed``), not an exception.

    Raises ModelFileError when the file holds no golden cases (``verify=False`` at export), or cannot be loaded.
    """
    if isolated and not isinstance(source, Model):
        key = None if public_key is None else read_key(public_key)
        read_providers(providers)  # an error of the caller's is no error of the file
        named = {"limits": limits, "public_key": key, "providers": providers}
        return verify_elsewhere("rnncore.runtime.verification", "verify", source, named)
    if isinstance(source, Model):
        model = source
    else:
        model = load(source, limits=limits, public_key=public_key, providers=providers)
    name = "the model" if isinstance(source, Model | bytes) else str(source)
    return compare(golden_of(model), answer_of(model), name, "rnncore.runtime")


def verify_elsewhere(
    module: str, function: str, source: str | os.PathLike[str] | bytes, named: Mapping[str, Any]
) -> VerifyReport:
    """What ``function(source, **named)`` of a module reports, called in a process that ends in time and memory.

    named: options that a pickle holds, ``limits`` among them.  Raises as :func:`rnncore.runtime.isolation.in_own_process`.
    """
    given = source if isinstance(source, bytes) else os.path.abspath(source)
    fields = in_own_process(module, function, (given,), named, named["limits"])
    fields["cases"] = tuple(Case(**case) for case in fields["cases"])
    fields["left_out"] = tuple(fields["left_out"])
    return replace(VerifyReport(**fields), name="the model" if isinstance(source, bytes) else str(source))


def answer_of(model: Model) -> Answer:
    """Cases put to the runtime itself: ``run``, and ``push`` for those in chunks."""
    return lambda case: _answer(model, case)


def golden_of(model: Model) -> Golden:
    """The golden cases of a model; ModelFileError when there are none, or when they do not fit the signature."""
    text = model.metadata.get(GOLDEN_KEY, "")
    golden = Golden.from_json(text, model.limits.golden_bytes) if text else None
    if golden is None or not golden.cases:
        why = f" ({'; '.join(golden.left_out)})" if golden is not None and golden.left_out else ""
        raise ModelFileError(f"the file holds no golden cases{why}: export it with verify=True")
    inputs, outputs = set(model.inputs), set(model.outputs)
    for case in golden.cases:
        if set(case.inputs) != inputs or set(case.outputs) != outputs:
            raise ModelFileError("the golden cases in the file do not fit its signature: export it again")
        _check_case(model.signature, case)
    return golden


def _check_case(signature: Signature, case: GoldenCase) -> None:
    """Raise ModelFileError unless the arrays of a case have the axes that the signature says, and its chunks add up."""
    for port in signature.inputs:
        array = case.inputs[port.name]
        if array.ndim != len(port.shape):
            raise ModelFileError(f"a golden case has input {port.name!r} of shape {list(array.shape)}: export it again")
        if case.chunks is not None and port.time_axis is not None and sum(case.chunks) != array.shape[port.time_axis]:
            raise ModelFileError("the chunks of a golden case do not add up to its input: export it again")
    if case.kind == "stream" and (not case.chunks or len(case.chunks) > _MOST_CHUNKS):
        raise ModelFileError(f"a golden case has {len(case.chunks or ())} chunks, expected 1 to {_MOST_CHUNKS}")


def compare(golden: Golden, answer: Answer, name: str, backend: str) -> VerifyReport:
    """Put every case to ``answer`` and judge what comes back; what it raises as an RnncoreError fails that case."""
    results = []
    for case in golden.cases:
        try:
            outputs, note = answer(case), ""
        except RnncoreError as error:
            outputs, note = {}, str(error)
        errors = [
            kept.error(outputs[out], golden.measure) if out in outputs else (np.inf, np.inf)
            for out, kept in case.outputs.items()
        ]
        max_abs, max_rel = (float(max(pair[i] for pair in errors)) for i in (0, 1))
        passed = max_rel <= golden.tolerance
        results.append(Case(case.kind, case.batch, case.time, case.detail, max_abs, max_rel, passed, note))
    return VerifyReport(name, backend, golden.tolerance, tuple(results), golden.left_out, golden.measure)


def chunks_of(signature: Signature, case: GoldenCase) -> list[dict[str, Array]]:
    """The inputs of a case cut along time into its chunks; those without a time axis whole each time."""
    cut, start = [], 0
    for size in case.chunks or ():
        cut.append({port.name: _steps(port, case.inputs[port.name], start, size) for port in signature.inputs})
        start += size
    return cut


def joined(signature: Signature, parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Answers to chunks, batch axis included, as one: joined along time, or the last one for an output without time."""
    wholes = {
        port.name: np.concatenate([part[port.name] for part in parts], port.time_axis)
        if port.time_axis is not None
        else parts[-1][port.name]
        for port in signature.outputs
    }
    return {port.name: Slot.of(port).folded(wholes[port.name]) for port in signature.outputs}


def _answer(model: Model, case: GoldenCase) -> dict[str, Array]:
    signature = model.signature
    if case.kind != "stream":
        lengths = None if case.lengths is None else np.array(case.lengths, np.int64)
        if "lengths" in case.inputs:  # an input like others
            return _named(signature, model.run(*(case.inputs[port.name] for port in signature.inputs), lengths=lengths))
        return _named(signature, model.run(**case.inputs, lengths=lengths))
    ports = {port.name: port for port in signature.inputs}
    with model.stream() as stream:
        parts = []
        for chunk in chunks_of(signature, case):
            row = {name: np.take(array, 0, ports[name].batch_axis) for name, array in chunk.items()}
            parts.append(_batched(signature, _named(signature, stream.push(**row))))
    return joined(signature, parts)


def _named(signature: Signature, answer: Any) -> dict[str, Array]:
    return dict(answer) if isinstance(answer, Mapping) else {signature.outputs[0].name: answer}


def _batched(signature: Signature, row: Mapping[str, Array]) -> dict[str, Array]:
    return {port.name: np.expand_dims(row[port.name], port.batch_axis or 0) for port in signature.outputs}


def _steps(port: TensorSpec, array: Array, start: int, size: int) -> Array:
    if port.time_axis is None:
        return array
    return np.take(array, range(start, start + size), axis=port.time_axis)


def _row(case: Case, reasons: list[str]) -> tuple[str, ...]:
    result = "passed" if case.passed else "FAILED"
    mark = f" [{reasons.index(case.note) + 1}]" if case.note else ""
    errors = (f"{case.max_abs:.2g}", f"{case.max_rel:.2g}")
    return (case.kind, str(case.batch), str(case.time), *errors, result + mark, case.detail)
