"""How a recurrence is written in ONNX: a ``Loop`` or a ``Scan`` around a step graph, or a fused operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder, initializer
from rnncore.export.lowering.fused import emit_fused
from rnncore.export.lowering.log_sums import emit_log_sums, is_log_sum
from rnncore.export.lowering.loop_fission import emit_stages, stages_of
from rnncore.export.lowering.loops import emit_loop, emit_scan, loop, scan
from rnncore.export.lowering.one_step import emit_step
from rnncore.export.lowering.put_together import first_part
from rnncore.export.lowering.recurrence import Recurrence
from rnncore.export.tracing.rolling.cell import RolledCell
from rnncore.runtime.format.axes import TIME
from rnncore.runtime.session.cpu_features import GEMV

Emit = Callable[[Builder, Recurrence, ir.Value], list[ir.Value]]
Branch = Callable[[Builder, Recurrence], list[ir.Value]]
Form = Literal["loop", "scan", "fused"]
FORMS = ("loop", "scan", "fused")
SMALL = 2**21
"""Most numbers in the matrices of a cell for which a single step is written out without a loop."""


@dataclass
class Extent:
    """How far a batch reaches: what all layers over the same rows and steps share.

    lengths: valid steps of each row, int64 [batch], or None when all are.  shortest: the smallest of them, [1].
    """

    lengths: ir.Value | None
    shortest: ir.Value | None
    _one_step: ir.Value | None = None

    @classmethod
    def of(cls, builder: Builder, lengths: ir.Value | None) -> Extent:
        """The extent of a batch with these lengths."""
        return cls(lengths, None if lengths is None else builder.op("ReduceMin", lengths))

    def one_step(self, builder: Builder, x: ir.Value) -> ir.Value:
        """Whether x [batch, time, size] is one step and valid in every row, [1]."""
        if self._one_step is None:
            # Few nodes, as every streaming step pays for them: 2 time - shortest is 1 only if both are 1.
            steps = builder.op("Shape", first_part(x), start=1, end=2)
            if self.shortest is not None:
                steps = builder.op("Sub", builder.op("Add", steps, steps), self.shortest)
            self._one_step = builder.op("Equal", steps, builder.constant([1]))
        return self._one_step


def write_recurrence(builder: Builder, rec: Recurrence, extent: Extent, form: str, *, streams: bool) -> list[ir.Value]:
    """The recurrence in the given form: [y [batch, time, size], *final states].

    With lengths, at t >= length the state is held and the output is zero.  The loop stands in branches of ``If``, one
    for each way of calling, because each way is fast differently (onnxruntime 1.32, one thread, LSTM):

    - one step (if the file ``streams``, and the cell is ``SMALL``): no loop; 31 us against 42 for a row of size 64;
    - one row: the loop with its weights as they are, for which there is a matrix-vector kernel: with AVX2 7 % at size 256,
      25 % at 1024; with AVX-512 it loses as much, and the runtime switches it off;
    - rows of full length: the loop with packed weights: 2.3 times as fast as unpacked for 4 rows of 256, 1.2 times for 16;
    - rows of any length: the same with masks, which cost three nodes a step.

    The step of a loop by hand, if it has no matrices, is written as ``Scan`` in either form: its few nodes cost less than to
    look up what they read (128 steps of an RG-LRU: 207 us in place of 337).  Layers keep to their form: other programs than
    onnxruntime run one of the two only.

    In all but the first the step is cut by gate, see :mod:`rnncore.export.gate_splitting.gate_split`.

    onnxruntime packs a weight of a subgraph only if it is a constant of that subgraph or of the one right around it, so
    the loops that want it packed copy it: a ``Flatten`` which constant folding replaces when the file is loaded.  It
    stands in the body itself, because a body that takes a packed weight from around it gets no plan of its memory.

    A loop that may have no turn is a ``Loop`` in every form: onnxruntime's ``Scan`` over nothing divides by zero, and takes
    the process with it.  Over the time axis itself there is a turn at least: the runtime answers no steps without the file.

    Forms of :data:`PLAIN` have one loop instead, with its weights as they are, and with masks if there are lengths.
    """
    if form == "fused":
        return emit_fused(builder, rec, extent.lengths)
    may_scan = _has_a_turn(rec)
    if form in PLAIN.values():
        return _plain(builder, rec, extent, emit_scan if form == PLAIN["scan"] and may_scan else emit_loop)
    by_scan = form != "loop" or (isinstance(rec.cell, RolledCell) and not rec.matrix_size)
    emit = emit_scan if by_scan and may_scan else emit_loop

    stages = stages_of(rec)

    def steps(inside: Builder, own: Recurrence) -> list[ir.Value]:
        if stages is not None:
            run = scan if may_scan and (form != "loop" or isinstance(rec.cell, RolledCell)) else loop
            return _cut_apart(inside, own, extent, partial(emit_stages, stages=stages, run=run), builder)
        if not rec.reverse and is_log_sum(rec.cell):
            return _log_sums(inside, own, extent)
        if form == FUSED_OR_SCAN:
            return _fused_or_steps(inside, own, extent, emit, builder)
        return _steps(inside, own, extent, emit, builder)

    if not streams or rec.matrix_size > SMALL:
        return steps(builder, rec)
    return _either(builder, rec, extent.one_step(builder, rec.x), ("one_step", emit_step), ("steps", steps))


def _has_a_turn(rec: Recurrence) -> bool:
    """Whether the loop runs once at least whatever the file is given."""
    steps = None if rec.x.shape is None else rec.x.shape[1]
    return steps > 0 if isinstance(steps, int) else getattr(steps, "value", None) == TIME


PLAIN = {"loop": "plain loop", "scan": "plain scan"}
"""Forms with one loop for every way of calling, easy to read and slower, by the form that they are without branches."""

FUSED_OR_SCAN = "fused+scan"
"""The fused operator and a ``Scan`` as branches: the operator where it is right, which each call finds out."""

_ORDINARY = 1e30
"""Of numbers that add up to less, no product with weights overflows, and none of them is NaN or infinite."""


def _fused_or_steps(builder: Builder, rec: Recurrence, extent: Extent, emit: Emit, outside: Builder) -> list[ir.Value]:
    """The fused operator for ordinary numbers, and the steps for others, of which it would hide NaN.

    Only for cells whose states stay bounded (sigmoid and tanh): of ordinary numbers they make no others.
    """
    sums = [builder.op("ReduceL1", value, keepdims=0) for value in (rec.x, *rec.states)]
    ordinary = builder.op("Less", builder.op("Sum", *sums), builder.constant(_ORDINARY, rec.dtype.numpy()))
    return _either(
        builder,
        rec,
        ordinary,
        ("fused", lambda b, r: emit_fused(b, r, extent.lengths)),
        ("explicit", lambda b, r: _steps(b, r, extent, emit, outside)),
    )


def _cut_apart(builder: Builder, rec: Recurrence, extent: Extent, emit: Emit, outside: Builder) -> list[ir.Value]:
    """As :func:`_steps`, by several loops, which ``emit`` writes."""
    own = rec.over_time(builder, None, time_first=False)
    time = builder.op("Shape", first_part(*own.along), start=1, end=2)
    if not rec.matrix_size:
        return _rows(builder, own, extent, emit, time)
    one, rows = (
        ("one_row", lambda b, r: emit(b, r.unpacked(outside), time)),
        ("rows", lambda b, r: _rows(b, r, extent, emit, time)),
    )
    return _either(builder, own, _is_one_row(builder, own, extent, time), one, rows)


def _log_sums(builder: Builder, rec: Recurrence, extent: Extent) -> list[ir.Value]:
    if extent.lengths is None:
        return emit_log_sums(builder, rec, None, None)
    valid = _valid_steps(builder, extent.lengths, builder.op("Shape", rec.x, start=1, end=2))
    return emit_log_sums(builder, rec, extent.lengths, valid)


def _plain(builder: Builder, rec: Recurrence, extent: Extent, emit: Emit) -> list[ir.Value]:
    time = builder.op("Shape", rec.x, start=1, end=2)
    whole = rec.over_time(builder, None, time_first=False)
    return emit(builder, whole, time) if extent.lengths is None else _masked(builder, whole, extent, emit, time)


def _steps(builder: Builder, rec: Recurrence, extent: Extent, emit: Emit, outside: Builder) -> list[ir.Value]:
    time = builder.op("Shape", rec.x, start=1, end=2)
    return _either(
        builder,
        rec,
        _is_one_row(builder, rec, extent, time),
        ("one_row", lambda b, r: emit(b, _one_row(b, r, emit).unpacked(outside), time)),
        ("rows", lambda b, r: _rows(b, _many_rows(b, r, emit), extent, emit, time)),
    )


def _is_one_row(builder: Builder, rec: Recurrence, extent: Extent, time: ir.Value) -> ir.Value:
    # The shortest length reaches rows * time only if there is one row, and that is full; times 0 it never does.
    shortest = builder.op("Mul", time if extent.shortest is None else extent.shortest, _gemv(builder.main))
    cells = builder.op("Mul", builder.op("Shape", rec.x, start=0, end=1), time)
    return builder.op("GreaterOrEqual", shortest, cells)


_MOST_LOOKED_UP = 3
"""Parts of z in a ``Loop`` over one row: looking up four of them costs what cutting saves."""


def _one_row(builder: Builder, rec: Recurrence, emit: Emit) -> Recurrence:
    columns = rec.ways_to_cut(join=emit is emit_loop)
    if emit is emit_loop and columns is not None and len(columns.parts) > _MOST_LOOKED_UP:
        columns = None
    return rec.over_time(builder, columns, time_first=emit is emit_scan or columns is not None)


def _many_rows(builder: Builder, rec: Recurrence, emit: Emit) -> Recurrence:
    return rec.over_time(builder, rec.ways_to_cut(join=emit is emit_loop), time_first=True)


def _gemv(main: ir.Graph) -> ir.Value:
    """1, unless whoever opens the file says otherwise, see :mod:`rnncore.runtime.session.cpu_features`."""
    return initializer(main, GEMV, ir.tensor(np.ones(1, np.int64), name=GEMV))


def _rows(builder: Builder, rec: Recurrence, extent: Extent, emit: Emit, time: ir.Value) -> list[ir.Value]:
    if extent.lengths is None:
        return emit(builder, rec.packed(), time)
    return _either(
        builder,
        rec,
        builder.op("GreaterOrEqual", extent.shortest, time),
        ("full", lambda b, r: emit(b, r.packed(), time)),
        ("masked", lambda b, r: _masked(b, r.packed(), extent, emit, time)),
    )


def _either(
    builder: Builder, rec: Recurrence, condition: ir.Value, then: tuple[str, Branch], otherwise: tuple[str, Branch]
) -> list[ir.Value]:
    """An ``If`` whose branches both give [y, *final states]."""
    graphs = []
    for name, branch in (then, otherwise):
        inside = builder.nested()
        graphs.append(inside.subgraph([], branch(inside, rec), name))
    return builder.ops("If", [condition], 1 + len(rec.states), then_branch=graphs[0], else_branch=graphs[1])


def _masked(builder: Builder, rec: Recurrence, extent: Extent, emit: Emit, time: ir.Value) -> list[ir.Value]:
    valid = _valid_steps(builder, extent.lengths, time)
    along = valid if rec.time_axis == 1 else builder.op("Transpose", valid, perm=[1, 0, 2])
    y, *finals = emit(builder, replace(rec, valid=along), time)
    return [builder.op("Where", valid, y, builder.constant(0, rec.dtype.numpy())), *finals]


def _valid_steps(builder: Builder, lengths: ir.Value | None, time: ir.Value) -> ir.Value:
    """Boolean [batch, time, 1]: True where t < length."""
    stop = builder.op("Squeeze", time, builder.constant([0]))
    steps = builder.op("Range", builder.constant(0), stop, builder.constant(1))
    column = builder.op("Unsqueeze", lengths, builder.constant([1]))
    return builder.op("Unsqueeze", builder.op("Less", steps, column), builder.constant([2]))
