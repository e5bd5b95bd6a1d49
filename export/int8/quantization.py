"""The second half of an export with ``quantize="int8"``: from a verified float32 graph to a verified int8 file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import Tensor, nn

from rnncore.export.file import write_model
from rnncore.export.int8.rewriting import quantize_int8
from rnncore.export.tracing.example import Axes, Example
from rnncore.export.verification.accuracy import AccuracyReport, measure_accuracy, read_data
from rnncore.export.verification.cases import Case, Verdict
from rnncore.export.verification.judging import INT8_RMS, Int8Judge
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.verifier import Verifier
from rnncore.runtime.errors import ExportError, InputError, VerificationError, raise_all
from rnncore.runtime.format.signature import PREFIX, Signature

QUANTIZATIONS = ("int8",)


@dataclass(frozen=True)
class Quantization:
    """What the caller asked for; ``data`` is what to measure accuracy on, the tensors of each call, or None."""

    data: list[list[Tensor]] | None

    @classmethod
    def of(
        cls,
        quantize: str | None,
        module: nn.Module,
        example: Example,
        data: Sequence[Any] | None,
        axes: Axes | None,
        lengths: str | bool,
    ) -> Quantization | None:
        """None where nothing is to be quantized; arguments as of :func:`rnncore.export.export`.

        Raises:
            InputError: ``quantize`` is unknown, data are given without it, or do not fit the module.
            ExportError: the module is not in float32.
        """
        if quantize is None:
            if data is not None:
                raise InputError(
                    "accuracy_data measures what int8 costs: pass quantize='int8' as well, or leave it out"
                )
            return None
        if quantize not in QUANTIZATIONS:
            raise InputError(f"quantize is {quantize!r}, expected {' or '.join(map(repr, QUANTIZATIONS))} or None")
        others = sorted({str(p.dtype) for p in module.parameters() if p.dtype.is_floating_point} - {"torch.float32"})
        problems = [
            f"quantize='int8' starts from float32, the module has weights of {', '.join(others)}: call .float()"
        ]
        raise_all(problems if others else [], ExportError)
        if isinstance(data, str | bytes | dict) or not isinstance(data, Sequence | None):
            raise InputError(f"accuracy_data is a {type(data).__name__}, expected a list of calls like the example")
        return cls(None if data is None else read_data(module, example, data, axes, lengths))

    def apply(
        self,
        model: ir.Model,
        path: Path,
        signature: Signature,
        module: nn.Module,
        example: Example,
        verdict: Verdict | None,
    ) -> tuple[dict[str, Any], AccuracyReport]:
        """Quantize ``model`` in place and write it to ``path``; the report for the file and the accuracy.

        verdict: on the float32 file; None to leave verification out.

        Raises:
            ExportError: there is nothing to quantize.
            VerificationError: int8 loses too much, or an answer depends on other rows or on the chunking.
        """
        done = quantize_int8(model, signature.states)
        model.metadata_props[PREFIX + "precision"] = "int8"
        write_model(model, path)
        report: dict[str, Any] = {}
        if verdict is not None:
            own = Verifier(Reference(module, example), example, Int8Judge(), verdict.seed).verify(path)
            wrong = [case for case in own.cases if not case.passed]
            if wrong:
                raise VerificationError(_message(wrong))
            worst = max((case.max_abs for case in verdict.cases), default=0.0)
            report = {**own.to_dict(), "float32": {"cases": len(verdict.cases), "max_abs": worst}}
        accuracy = measure_accuracy(path, module, example, self.data)
        report["int8"] = {"quantized": str(done), **accuracy.to_dict()}
        return report, accuracy


def check_form(form: str, layers: Sequence[str]) -> None:
    """ExportError for the form whose operators have no int8 twin."""
    raise_all(
        [
            f"form='fused' has no int8 operator of the ONNX standard for layer '{name}'; use form='loop' or 'scan'"
            for name in (layers if form == "fused" else ())
        ],
        ExportError,
    )


def _message(cases: Sequence[Case]) -> str:
    lines = "\n".join(f"  - {case}" for case in cases[:6])
    return (
        f"in float32 the file is right, in int8 it is not (allowed are {INT8_RMS:.0%} of rms error against PyTorch); "
        f"export this model without quantize:\n{lines}"
    )
