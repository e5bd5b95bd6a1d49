"""What may be chosen of a file that writes whole sequences: checked before the work."""

from __future__ import annotations

from rnncore.export.int8.quantization import QUANTIZATIONS
from rnncore.export.lowering.forms import FORMS
from rnncore.export.targets import TARGETS
from rnncore.runtime.errors import raise_all


def check_choices(form: str, target: str | None, quantize: str | None) -> None:
    """InputError that lists what cannot be chosen.

    The whole sequence is a ``Loop`` that ends early, around all recurrences: of the targets only onnxruntime runs it, and where a
    recurrence is an operator of its own there is nothing in it for int8.
    """
    forms = (*FORMS, "portable", "auto")
    problems = []
    if form not in forms:
        problems.append(f"form is {form!r}, expected one of: {', '.join(map(repr, forms))}")
    if target is not None and target not in TARGETS:
        problems.append(f"target is {target!r}, expected 'onnxruntime'")
    elif target is not None and target != "onnxruntime":
        problems.append(
            f"target is {target!r}: a file that writes whole sequences is one Loop with an end of its own, which is proved for "
            "onnxruntime only; export the model itself for that program (export, export_model), and choose the tokens outside"
        )
    elif target is not None and form != "auto":
        problems.append(
            f"target chooses the forms of form='auto', the form is {form!r}: leave target out, or take 'auto'"
        )
    if quantize is not None and quantize not in QUANTIZATIONS:
        problems.append(f"quantize is {quantize!r}, expected {' or '.join(map(repr, QUANTIZATIONS))} or None")
    if quantize is not None and form == "fused":
        problems.append("form='fused' has no int8 operator of the ONNX standard: use form='loop', 'scan' or 'auto'")
    raise_all(problems)
