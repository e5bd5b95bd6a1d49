"""The recurrence as ONNX's own ``RNN``, ``GRU`` or ``LSTM`` operator, for the cells whose equations it shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from rnncore.cells import Cell, GRUCell, LSTMCell, RNNCell
from rnncore.export.graph.builder import Builder, initializer
from rnncore.export.lowering.recurrence import Recurrence
from rnncore.export.tracing.recorder import Call
from rnncore.runtime.errors import ExportError, raise_all
from rnncore.weight_layouts import repack

_ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "sigmoid": ("Sigmoid", None, None),
    "tanh": ("Tanh", None, None),
    "relu": ("Relu", None, None),
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "hard_sigmoid_keras2": ("HardSigmoid", 0.2, 0.5),
    "softsign": ("Softsign", None, None),
    "softplus": ("Softplus", None, None),
    "leaky_relu": ("LeakyRelu", 0.01, None),
    "elu": ("Elu", 1.0, None),
}
"""ONNX name, alpha and beta of each activation that the fused operators know."""


def why_not_fused(cell: Cell) -> str:
    """Why ``cell`` has no fused operator with its exact semantics; empty when it has one."""
    if type(cell) not in (RNNCell, GRUCell, LSTMCell):
        return f"ONNX has no operator for {type(cell).__name__}"
    if isinstance(cell, GRUCell) and cell.reset is None:
        return "ONNX's GRU always has a reset gate"
    if isinstance(cell, LSTMCell):
        if cell.layer_norm:
            return "ONNX's LSTM has no layer normalisation"
        if cell.projection:
            return "ONNX's LSTM has no projection"
        if cell.peephole == "previous":
            return "ONNX's output peephole sees the current memory (peephole='current'), not the previous one"
        if cell.coupled and cell.gate_activation != "sigmoid":
            return "coupled gates turn into ONNX's only for the sigmoid, where 1 - f(v) = f(-v)"
    unknown = [name for name in _activations(cell) if name not in _ACTIVATIONS]
    return f"ONNX's operators have no activation {unknown[0]!r}" if unknown else ""


def check_fusable(calls: Sequence[Call]) -> None:
    """Raise ExportError unless every call's cell has a fused operator; lists each layer that has none, and why."""
    problems = [
        f"form='fused' cannot write layer '{call.name}': {reason}; use form='loop' or 'scan'"
        for call in calls
        if (reason := why_not_fused(call.cell))
    ]
    raise_all(problems, ExportError)


def emit_fused(builder: Builder, rec: Recurrence, lengths: ir.Value | None) -> list[ir.Value]:
    """[y [batch, time, size], *final states] from one fused operator on x; the cell must pass :func:`check_fusable`."""
    weights = [
        initializer(builder.main, f"{rec.owner}.{name}", ir.tensor(array[None], name=f"{rec.owner}.{name}"))
        for name, array in _weights(rec.cell).items()
    ]
    w, r, b, *p = weights
    direction = builder.constant([0])
    x = builder.op("Transpose", rec.x, perm=[1, 0, 2])
    steps = None if lengths is None else builder.op("Cast", lengths, to=int(ir.DataType.INT32))
    states = [builder.op("Unsqueeze", state, direction) for state in rec.states]
    y, *finals = builder.ops(
        _kind(rec.cell).upper(), [x, w, r, b, steps, *states, *p], 1 + len(states), **_attributes(rec)
    )
    y = builder.op("Transpose", builder.op("Squeeze", y, builder.constant([1])), perm=[1, 0, 2])
    finals = [builder.op("Squeeze", final, direction) for final in finals]
    if lengths is not None:
        # onnxruntime gives a row of length 0 a final state of zero instead of its initial one.
        empty = builder.op("Unsqueeze", builder.op("Equal", lengths, builder.constant(0)), builder.constant([1]))
        finals = [builder.op("Where", empty, old, new) for old, new in zip(rec.states, finals, strict=True)]
    return [y, *finals]


def _kind(cell: Cell) -> str:
    return {RNNCell: "rnn", GRUCell: "gru", LSTMCell: "lstm"}[type(cell)]


def _activations(cell: Cell) -> list[str]:
    """Names in the order of the operator: RNN f; GRU f, g; LSTM f, g, h."""
    if isinstance(cell, GRUCell):
        return [cell.gate_activation, cell.activation]
    if isinstance(cell, LSTMCell):
        return [cell.gate_activation, cell.activation, cell.activation]
    assert isinstance(cell, RNNCell)
    return [cell.activation]


def _attributes(rec: Recurrence) -> dict[str, Any]:
    rows = [_ACTIVATIONS[name] for name in _activations(rec.cell)]
    attributes: dict[str, Any] = {
        "hidden_size": rec.cell.hidden_size,
        "direction": "reverse" if rec.reverse else "forward",
        "activations": [row[0] for row in rows],
    }
    # alpha and beta list values for the activations that take one, in order.
    for index, what in ((1, "activation_alpha"), (2, "activation_beta")):
        values = [row[index] for row in rows if row[index] is not None]
        if values:
            attributes[what] = values
    if isinstance(rec.cell, GRUCell):
        attributes["linear_before_reset"] = int(rec.cell.reset == "after")
    if isinstance(rec.cell, LSTMCell) and rec.cell.coupled:
        attributes["input_forget"] = 1
    return attributes


def _weights(cell: Cell) -> dict[str, np.ndarray]:
    """W, R, B and, with peepholes, P."""
    own = {name: p.detach().cpu().numpy() for name, p in cell.named_parameters() if not name.startswith("initial_")}
    if isinstance(cell, LSTMCell) and cell.coupled:
        own = _uncoupled(own)
    weight = own["weight_ih"]
    for name in ("bias_ih", "bias_hh"):
        own.setdefault(name, np.zeros(len(weight), weight.dtype))
    packed = repack(own, _kind(cell), "torch", "onnx")  # type: ignore[arg-type]
    return {name: packed[name] for name in ("W", "R", "B", "P") if name in packed}


def _uncoupled(own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """f, g, o as i, f, g, o: ONNX couples the gates as f = 1 - i, and sigmoid(-v) = 1 - sigmoid(v)."""
    result = {}
    for name, value in own.items():
        forget = np.split(value, 2 if name == "weight_peephole" else 3)[0]
        result[name] = np.concatenate([-forget, value])
    return result
