"""``quantize``: a float32 file of rnncore becomes an int8 one, without the module that it was made from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from rnncore.export.file import in_one_file, saving, weights_of, write_entries, write_model
from rnncore.export.int8.rewriting import quantize_int8
from rnncore.export.signature import REPORT_KEY
from rnncore.export.verification.accuracy import AccuracyReport, compare
from rnncore.export.verification.judging import INT8_RMS, INT8_SELF, Int8Judge
from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import ExportError, InputError, VerificationError
from rnncore.runtime.format.atomic import target_of
from rnncore.runtime.format.axes import BATCH
from rnncore.runtime.format.container import FINGERPRINT_KEY
from rnncore.runtime.format.golden import GOLDEN_KEY, Golden, GoldenCase, StoredArray
from rnncore.runtime.format.signature import BLANK_FINGERPRINT, PREFIX, TensorSpec
from rnncore.runtime.model import Model, load
from rnncore.runtime.text.generation import GENERATION_KEY
from rnncore.runtime.text.translator import TRANSLATION_KEY
from rnncore.runtime.verification import Case, answer_of, verify
from rnncore.runtime.verification import compare as compare_golden

_FUSED = ("GRU", "LSTM", "RNN")
Array = np.ndarray


@dataclass(frozen=True)
class QuantizeReport:
    """What :func:`quantize` wrote, and what that costs.

    quantized: what became int8.  worst_rms: the largest error over the golden cases, root mean square as a part of that of
    PyTorch's answers.  accuracy: against the float32 file on the caller's data, None without.
    """

    path: Path
    size_bytes: int
    size_bytes_before: int
    quantized: str
    worst_rms: float
    accuracy: AccuracyReport | None

    def __str__(self) -> str:
        smaller = self.size_bytes / self.size_bytes_before
        text = (
            f"{self.path}: {self.quantized}; {self.size_bytes / 1e6:.2f} MB, {smaller:.0%} of before; "
            f"golden answers within {self.worst_rms:.2%} rms of PyTorch's"
        )
        return text if self.accuracy is None else f"{text}\n  {self.accuracy}"


@only_own_errors(ExportError, "quantizing the file")
def quantize(
    source: str | os.PathLike[str], path: str | os.PathLike[str], *, accuracy_data: Sequence[Any] | None = None
) -> QuantizeReport:
    """Write the int8 twin of a float32 file of rnncore, as ``export(..., quantize="int8")`` would have.

    The new file must answer the golden cases, PyTorch's answers, as near as an int8 export must, in chunks what it answers to
    the whole, and a row alone what it answers in a batch.

    Args:
        source: a file of ``rnncore.export`` in float32, of form "loop", "scan" or "portable", with its golden cases.
        path: the file to write.  Nothing is written unless everything succeeds.
        accuracy_data: calls of ``Model.run``, each an array, a tuple of them or a dict by name, on which the report says what
            int8 costs against the float32 file.

    Raises:
        ModelFileError: no file of rnncore, or a damaged one.
        InputError: a call of ``accuracy_data`` does not fit the model.
        ExportError: the file is not in float32, has fused layers, no golden cases, or nothing to quantize.
        VerificationError: int8 loses too much, or an answer depends on other rows or on the chunking.
    """
    file = Path(source)
    before = load(file)
    _check(before)
    calls = None if accuracy_data is None else list(_answers(before, accuracy_data))
    data = in_one_file(file, file.read_bytes())
    model = ir.from_proto(onnx.load_from_string(data))
    _check_operators(model)
    done = str(quantize_int8(model, before.signature.states))
    model.metadata_props.update({PREFIX + "precision": "int8", FINGERPRINT_KEY: BLANK_FINGERPRINT})
    golden = Golden.from_json(before.metadata[GOLDEN_KEY])
    held = replace(golden, measure=Int8Judge.measure, tolerance=INT8_RMS)
    model.metadata_props[GOLDEN_KEY] = held.to_json()
    with saving(target_of(path)) as temporary:
        write_model(model, temporary)
        after = load(temporary)
        cases = _proved(after, golden)
        accuracy = None if calls is None else _accuracy(after, accuracy_data or [], calls)
        write_entries(temporary, {REPORT_KEY: _report(before.report, cases, done, accuracy)})
        size = temporary.stat().st_size
    weights = weights_of(file)
    size_before = sum(one.stat().st_size for one in (file, weights) if one is not None)
    worst = max((case.max_rel for case in cases if case.kind != "rows" and "itself" not in case.detail), default=0.0)
    return QuantizeReport(Path(path), size, size_before, done, worst, accuracy)


def _check(model: Model) -> None:
    precision = model.metadata.get(PREFIX + "precision", "float32")
    if precision != "float32":
        raise ExportError(f"the file is in {precision}: only float32 becomes int8")
    if model.metadata.keys() & {GENERATION_KEY, TRANSLATION_KEY}:
        raise ExportError(
            "the file writes whole texts in one call, and a token that int8 tips changes all that follow, so that no golden "
            "answer could hold it: quantize a language model's own file"
        )
    if GOLDEN_KEY not in model.metadata:
        raise ExportError(
            "the file has no golden cases (verify=False at export), so that nothing says whether int8 is right"
        )


def _check_operators(model: ir.Model) -> None:
    fused = sorted({node.op_type for node in model.graph.all_nodes() if node.op_type in _FUSED})
    if fused:
        raise ExportError(
            f"the file has fused layers ({', '.join(fused)}), for which the ONNX standard has no int8 operator: export it with "
            "form='loop' or 'scan' first"
        )


def _proved(model: Model, golden: Golden) -> list[Case]:
    """Every comparison: with PyTorch's answers, and of the file with itself; VerificationError if one fails."""
    told = verify(model)
    itself = compare_golden(
        Golden(INT8_SELF, tuple(_own_cases(model, golden))), answer_of(model), "", "rnncore.runtime"
    )
    rows = [replace(case, kind="rows") if case.kind == "whole" else case for case in itself.cases]
    cases = [*told.cases, *(replace(case, detail=f"{case.detail} against itself".strip()) for case in rows)]
    wrong = [case for case in cases if not case.passed]
    if wrong:
        lines = "\n".join(f"  - {case}" for case in wrong[:6])
        raise VerificationError(
            f"in float32 the file is right, in int8 it is not (allowed are {INT8_RMS:.0%} of rms error): keep it in float32\n"
            + lines
        )
    return cases


def _own_cases(model: Model, golden: Golden) -> Iterator[GoldenCase]:
    """Questions to the file about itself: each stream against the whole, each row of a batch against that row alone."""
    answer = answer_of(model)
    specs = {spec.name: spec for spec in (*model.signature.inputs, *model.signature.outputs)}
    rows_first = all(spec.shape[:1] == (BATCH,) for spec in specs.values()) and model.signature.stride == 1
    for case in golden.cases:
        if case.kind == "stream":
            yield replace(case, outputs=_kept(answer(replace(case, kind="whole", chunks=None))))
        elif case.batch > 1 and rows_first:
            whole = answer(case)
            for row in range(case.batch):
                steps = case.time if case.lengths is None else case.lengths[row]
                inputs = {name: _cut(array, specs[name], row, steps) for name, array in case.inputs.items()}
                outputs = _kept(
                    {name: _cut(np.asarray(array), specs[name], row, steps) for name, array in whole.items()}
                )
                yield GoldenCase("whole", 1, steps, inputs, outputs)


def _cut(array: Array, spec: TensorSpec, row: int, steps: int) -> Array:
    """One row, as a batch of one, with so many of its steps."""
    one = array[row : row + 1]
    return one if spec.time_axis is None else one.take(np.arange(steps), spec.time_axis)


def _kept(answer: Mapping[str, Array]) -> dict[str, StoredArray]:
    return {name: StoredArray.of(np.asarray(array), np.asarray(array).nbytes + 1) for name, array in answer.items()}


def _answers(model: Model, calls: Sequence[Any]) -> Iterator[list[Array]]:
    if isinstance(calls, str | bytes | Mapping) or not len(calls):
        raise InputError("accuracy_data is empty or no list: hand in at least one call of the model, or leave it out")
    for number, call in enumerate(calls):
        try:
            yield _run(model, call)
        except InputError as problem:
            raise InputError(f"accuracy_data[{number}]: {problem}") from None


def _run(model: Model, call: Any) -> list[Array]:
    found = (
        model.run(**call) if isinstance(call, Mapping) else model.run(*(call if isinstance(call, tuple) else (call,)))
    )
    return [found[name] for name in model.outputs] if isinstance(found, dict) else [found]


def _accuracy(model: Model, calls: Sequence[Any], right: Sequence[list[Array]]) -> AccuracyReport:
    got = [_run(model, call) for call in calls]
    one = len(model.inputs) == 1
    arrays = [np.asarray(call) if one and not isinstance(call, Mapping | tuple) else None for call in calls]
    ids = [array if array is not None and array.dtype.kind in "iu" else None for array in arrays]
    outputs = tuple(
        compare(name, ids, [answer[k] for answer in got], [answer[k] for answer in right])
        for k, name in enumerate(model.outputs)
    )
    return AccuracyReport(len(got), True, outputs)


def _report(before: Mapping[str, Any], cases: Sequence[Case], done: str, accuracy: AccuracyReport | None) -> str:
    """The report of the float32 file with the int8 file's own cases in place of its."""
    old = before.get("cases", [])
    worst = max((case["max_abs"] for case in old), default=0.0)
    int8 = {"quantized": done} if accuracy is None else {"quantized": done, **accuracy.to_dict()}
    own = {
        "cases": [asdict(case) for case in cases],
        "tolerance": INT8_RMS,
        "float32": {"cases": len(old), "max_abs": worst},
    }
    return json.dumps({**before, **own, "int8": int8}, separators=(",", ":"))
