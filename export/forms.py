"""How a recurrence is written in ONNX: a ``Loop`` or a ``Scan`` around a step graph, or a fused operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from rnncore.export.builder import Builder
from rnncore.export.fused import emit_fused
from rnncore.export.recurrence import Recurrence

Emit = Callable[[Builder, Recurrence], list[ir.Value]]
Form = Literal["loop", "scan", "fused"]
FORMS = ("loop", "scan", "fused")
INT64_MIN = -(2**63)


@dataclass
class Lengths:
    """Valid steps of each row, int64 [batch], and two scalars that all layers over the same time axis share."""

    values: ir.Value
    time: ir.Value
    full: ir.Value

    @classmethod
    def of(cls, builder: Builder, values: ir.Value, z: ir.Value) -> Lengths:
        """``values`` beside the number of steps of z [batch, time, size] and whether no row is shorter than that."""
        time = builder.op("Squeeze", builder.op("Shape", z, start=1, end=2), builder.constant([0]))
        return cls(values, time, builder.op("GreaterOrEqual", builder.op("ReduceMin", values, keepdims=0), time))


def write_recurrence(builder: Builder, rec: Recurrence, lengths: Lengths | None, form: str) -> list[ir.Value]:
    """The recurrence in the given form: [y [batch, time, size], *final states].

    With ``lengths``, at t >= length the state is held and the output is zero.
    """
    if form == "fused":
        return emit_fused(builder, rec, None if lengths is None else lengths.values)
    emit = {"loop": emit_loop, "scan": emit_scan}[form]
    return emit(builder, rec) if lengths is None else emit_ragged(builder, rec, lengths, emit)


def emit_loop(builder: Builder, rec: Recurrence) -> list[ir.Value]:
    """The recurrence as a ``Loop``: [y [batch, time, size], *final states].

    The trip count and a constant-true condition are always given: onnx.reference runs no iteration without the latter.
    """
    zero, last = builder.constant([0]), builder.constant(1)
    trips = builder.op("Squeeze", builder.op("Shape", rec.z, start=1, end=2), zero)
    final = builder.op("Sub", trips, last) if rec.reverse else None
    true = builder.constant(True, bool)

    body = builder.nested()
    index = body.input("i", ir.DataType.INT64, ())
    condition = body.input("go_on", ir.DataType.BOOL, ())
    states = rec.state_inputs(body)
    t = body.op("Sub", final, index) if final is not None else index
    z_t = body.op("Gather", rec.z, t, axis=1)
    keep = body.op("Gather", rec.valid, t, axis=1) if rec.valid is not None else None
    y_t, *new = rec.take_step(body, z_t, states, keep)
    go_on = body.op("Identity", condition)
    graph = body.subgraph([index, condition, *states], [go_on, *new, y_t], "body")

    *finals, stacked = builder.ops("Loop", [trips, true, *rec.states], 1 + len(states), body=graph)
    if rec.reverse:
        ends = (builder.constant([v]) for v in (-1, INT64_MIN, 0, -1))
        stacked = builder.op("Slice", stacked, *ends)
    return [builder.op("Transpose", stacked, perm=[1, 0, 2]), *finals]


def emit_scan(builder: Builder, rec: Recurrence) -> list[ir.Value]:
    """The recurrence as a ``Scan`` over the time axis of z: [y [batch, time, size], *final states]."""
    body = builder.nested()
    states = rec.state_inputs(body)
    z_t = body.input("z", rec.dtype, ("batch", None))
    scanned, inputs = [rec.z], [*states, z_t]
    keep = None
    if rec.valid is not None:
        keep = body.input("keep", ir.DataType.BOOL, ("batch", 1))
        scanned.append(rec.valid)
        inputs.append(keep)
    y_t, *new = rec.take_step(body, z_t, states, keep)
    graph = body.subgraph(inputs, [*new, y_t], "body")
    direction = int(rec.reverse)
    *finals, y = builder.ops(
        "Scan",
        [*rec.states, *scanned],
        1 + len(states),
        body=graph,
        num_scan_inputs=len(scanned),
        scan_input_axes=[1] * len(scanned),
        scan_input_directions=[direction] * len(scanned),
        scan_output_axes=[1],
        scan_output_directions=[direction],
    )
    return [y, *finals]


def emit_ragged(builder: Builder, rec: Recurrence, lengths: Lengths, emit: Emit) -> list[ir.Value]:
    """The recurrence with lengths: at t >= length the state is held and the output is zero.

    When every length is full, which is every streaming step and every batch of one, a branch without masks runs: a
    mask costs three nodes a step and nine nodes a call (measured: 8 % at hidden size 256, 20 % of a single step at 64).
    """
    whole, masked = builder.nested(), builder.nested()
    rec_masked = replace(rec, valid=_valid_steps(masked, lengths))
    y, *finals = emit(masked, rec_masked)
    y = masked.op("Where", rec_masked.valid, y, masked.constant(0, rec.dtype.numpy()))
    return builder.ops(
        "If",
        [lengths.full],
        1 + len(rec.states),
        then_branch=whole.subgraph([], emit(whole, rec), "whole"),
        else_branch=masked.subgraph([], [y, *finals], "masked"),
    )


def _valid_steps(builder: Builder, lengths: Lengths) -> ir.Value:
    """Boolean [batch, time, 1]: True where t < length."""
    steps = builder.op("Range", builder.constant(0), lengths.time, builder.constant(1))
    column = builder.op("Unsqueeze", lengths.values, builder.constant([1]))
    return builder.op("Unsqueeze", builder.op("Less", steps, column), builder.constant([2]))
