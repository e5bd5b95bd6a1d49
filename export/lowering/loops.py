"""The loop around a step, as ``Loop`` or as ``Scan``."""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.lowering.recurrence import Recurrence

INT64_MIN = -(2**63)


def emit_loop(builder: Builder, rec: Recurrence, time: ir.Value) -> list[ir.Value]:
    """The recurrence as a ``Loop`` of ``time`` [1] steps: [y [batch, time, size], *final states]."""
    y, *finals = loop(builder, rec, time)
    return [builder.op("Transpose", y, perm=[1, 0, 2]), *finals]


def emit_scan(builder: Builder, rec: Recurrence, time: ir.Value) -> list[ir.Value]:
    """The recurrence as a ``Scan`` over the time axis of z: [y [batch, time, size], *final states]."""
    y, *finals = scan(builder, rec, time)
    return [y if rec.time_axis == 1 else builder.op("Transpose", y, perm=[1, 0, 2]), *finals]


def loop(builder: Builder, rec: Recurrence, time: ir.Value) -> list[ir.Value]:
    """A ``Loop`` of ``time`` [1] steps: [*results [time, batch, ...], *final states].

    The trip count and a constant-true condition are always given: onnx.reference runs no iteration without the latter.
    """
    final = (
        builder.op("Sub", builder.op("Squeeze", time, builder.constant([0])), builder.constant(1))
        if rec.reverse
        else None
    )
    true = builder.constant(True, bool)

    body = builder.nested()
    index = body.input("i", ir.DataType.INT64, ())
    condition = body.input("go_on", ir.DataType.BOOL, ())
    states = rec.state_inputs(body)
    t = body.op("Sub", final, index) if final is not None else index
    read = [body.op("Gather", value, t, axis=rec.time_axis) for value in rec.along]
    keep = body.op("Gather", rec.valid, t, axis=rec.time_axis) if rec.valid is not None else None
    found = rec.take_step(body, read, states, keep)
    results, new = found[: -len(states)], found[-len(states) :]
    go_on = body.op("Identity", condition)
    graph = body.subgraph([index, condition, *states], [go_on, *new, *results], "body")

    found = builder.ops("Loop", [time, true, *rec.states], len(found), body=graph)
    finals, stacked = found[: len(states)], found[len(states) :]
    if rec.reverse:
        ends = [builder.constant([v]) for v in (-1, INT64_MIN, 0, -1)]
        stacked = [builder.op("Slice", value, *ends) for value in stacked]
    return [*stacked, *finals]


def scan(builder: Builder, rec: Recurrence, _time: ir.Value) -> list[ir.Value]:
    """A ``Scan`` over what is read: [*results, *final states], results with their time where that of what is read is."""
    body = builder.nested()
    states, read = rec.state_inputs(body), rec.read_inputs(body)
    scanned, inputs = [*rec.along], [*states, *read]
    keep = None
    if rec.valid is not None:
        keep = body.input("keep", ir.DataType.BOOL, ("batch", 1))
        scanned.append(rec.valid)
        inputs.append(keep)
    found = rec.take_step(body, read, states, keep)
    results, new = found[: -len(states)], found[-len(states) :]
    graph = body.subgraph(inputs, [*new, *results], "body")
    direction = int(rec.reverse)
    found = builder.ops(
        "Scan",
        [*rec.states, *scanned],
        len(found),
        body=graph,
        num_scan_inputs=len(scanned),
        scan_input_axes=[rec.time_axis] * len(scanned),
        scan_input_directions=[direction] * len(scanned),
        scan_output_axes=[rec.time_axis] * len(results),
        scan_output_directions=[direction] * len(results),
    )
    return [*found[len(states) :], *found[: len(states)]]
