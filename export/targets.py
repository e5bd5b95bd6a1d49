"""What each program that runs ONNX files can run, and so in which form a layer is written for it.

Everything claimed here is what docs/conformance.md shows; a test holds the two together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from rnncore.cells import Cell, GRUCell, LSTMCell, RNNCell
from rnncore.export.lowering.forms import FUSED_OR_SCAN
from rnncore.export.lowering.fused import why_not_fused
from rnncore.export.tracing.recorder import Call

Target = Literal["onnxruntime", "openvino", "tract", "portable"]
TARGETS = ("onnxruntime", "openvino", "tract", "portable")
PORTABLE = ("onnxruntime", "openvino", "onnx-reference", "tract")
"""What target="portable" stands for."""
ASKED = "asked for"
_FASTEST = "the fused operator is faster at this size"
_SMALL = 2**22  # numbers in the weights of a cell, some 720 units; above, a loop costs less than 5 % on some processors
_LARGEST = 1e6  # weight of such a cell: times ordinary numbers it does not overflow
CHOICES_KEY = "rnncore.form_choices"


@dataclass(frozen=True)
class Choice:
    """The form of one layer, and why."""

    form: str
    reason: str


def why_not(program: str, form: str, cell: Cell, *, reverse: bool, lengths: bool) -> str:
    """Why ``program`` does not run a layer in ``form`` right; empty when it does, as the conformance table shows.

    program: "onnxruntime", "openvino", "onnx-reference" or "tract".  reverse: the layer reads backward, alone or as half
    of a bidirectional one.  lengths: it takes lengths.
    """
    if form == "fused":
        return why_not_fused(cell) or _why_not_operator(program, cell, reverse=reverse, lengths=lengths)
    if program == "onnxruntime" or form == "portable":
        return ""
    if program == "openvino":
        if form == "scan":
            return "OpenVINO does not take the branches of this form"
        return "OpenVINO was seen to answer the first call at a shape wrongly where a wide layer follows a Loop"
    if program == "tract":
        return "tract has no Loop, and takes branches only of equal symbolic shape"
    if form == "scan":
        return "onnx.reference scans forward only" if reverse else ""
    return "onnx.reference joins the steps of a Loop along the wrong axis"


def why_hides_nan(cell: Cell) -> str:
    """Why the fused operator of ``cell`` does not show NaN in onnxruntime; empty for the one that does, RNN with tanh."""
    if isinstance(cell, RNNCell) and cell.activation == "tanh":
        return ""
    return "onnxruntime's fused operator turns NaN into plausible numbers"


def _why_not_operator(program: str, cell: Cell, *, reverse: bool, lengths: bool) -> str:
    if program == "onnxruntime":
        return ""
    unusual = {getattr(cell, "activation", "tanh"), getattr(cell, "gate_activation", "sigmoid")} - {"tanh", "sigmoid"}
    if unusual:
        return f"{program} is not known to run fused operators with the activation {min(unusual)!r}"
    if lengths:
        how = "refuses" if program == "tract" else "silently ignores"
        return f"{program} {how} the lengths of fused operators"
    if program == "openvino" and isinstance(cell, LSTMCell) and cell.peephole:
        return "OpenVINO silently ignores peepholes"
    if program == "tract" and reverse:
        return "tract silently runs fused operators forward"
    return ""


def choose_forms(
    calls: Sequence[Call], form: str, target: str, *, int8: bool, branches: bool = True
) -> dict[str, Choice]:
    """The form of each recurrent call: ``form`` for all, or for "auto" what runs right, and fastest, on ``target``."""
    if form != "auto":
        return {call.name: Choice(form, ASKED) for call in calls}
    found = {call.name: _choice(call, target, int8=int8) for call in calls}
    if branches:
        return found
    return {name: _without_branches(choice) for name, choice in found.items()}


def _without_branches(choice: Choice) -> Choice:
    return Choice("scan", "one loop without branches was asked for") if choice.form == FUSED_OR_SCAN else choice


def _choice(call: Call, target: str, *, int8: bool) -> Choice:
    programs = PORTABLE if target == "portable" else (target,)
    where = {"reverse": call.layer.reverse, "lengths": bool(call.lengths)}
    against = "fused operators have no int8 twin" if int8 else ""
    for program in programs:
        against = against or why_not(program, "fused", call.cell, **where)
    if "onnxruntime" in programs and not against:
        against = why_hides_nan(call.cell)
        if against and target == "onnxruntime" and _is_small_and_bounded(call.cell):
            return Choice(FUSED_OR_SCAN, f"{_FASTEST}; a Scan stands beside it for NaN, which it would hide")
    if not against:
        return Choice(
            "fused", f"the fused operator computes exactly this cell on {', '.join(programs)}, and is fastest"
        )
    # onnxruntime hands a Scan its step of the input without a copy, so it is faster than a Loop at every size.
    form = "scan" if target == "onnxruntime" else "portable"
    return Choice(form, against)


def _is_small_and_bounded(cell: Cell) -> bool:
    """Whether the operator is much faster than a loop, and out of ordinary numbers makes no NaN that it could hide."""
    if not isinstance(cell, LSTMCell | GRUCell) or (cell.gate_activation, cell.activation) != ("sigmoid", "tanh"):
        return False
    weights = list(cell.parameters())
    if sum(weight.numel() for weight in weights) > _SMALL:
        return False
    return all(weight.dtype == torch.float32 and bool((weight.abs() <= _LARGEST).all()) for weight in weights)


def form_text(choices: Mapping[str, Choice]) -> str:
    """The forms in a file, such as ``loop`` or ``fused+loop``."""
    return "+".join(sorted({form for choice in choices.values() for form in choice.form.split("+")})) or "none"


def describe(choices: Mapping[str, Choice]) -> list[str]:
    """One line for each layer whose form was chosen for its caller."""
    return [f"layer '{name}': {c.form}, because {c.reason}" for name, c in choices.items() if c.reason != ASKED]


def choices_json(choices: Mapping[str, Choice]) -> str:
    """The choices as the file's metadata hold them."""
    return json.dumps({name: asdict(choice) for name, choice in choices.items()}, separators=(",", ":"))
