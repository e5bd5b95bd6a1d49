"""Running sums of exponentials, as logarithms, without a loop over time.

``y[t] = log(exp(start) + exp(x[0]) + ... + exp(x[t]))`` is what minimal recurrent networks compute over time (Feng et al. 2024,
"Were RNNs all we needed?", appendix B).  Step by step it costs ten nodes for every step.  Where float64 holds all of the
exponentials, relative to the largest, they are summed up as they are.  Elsewhere distances are doubled: since the sum is
associative, each number can be put together from two that reach half as far back.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import torch

from rnncore.cells import Cell
from rnncore.export.graph.builder import Builder, initializer
from rnncore.export.lowering.recurrence import Recurrence
from rnncore.export.tracing.rolling.cell import RolledCell

_BOOL, _INT32, _DOUBLE = int(ir.DataType.BOOL), int(ir.DataType.INT32), int(ir.DataType.DOUBLE)
_DRAWS, _ROWS = 4, 5
_SPREADS = (1.0, 30.0)
_DOUBLINGS = 40
"""No call has more steps than two to this."""
_SPREAD = 650.0
"""Logarithms that are so far apart have exponentials that float64 still holds beside one another."""


def is_log_sum(cell: Cell) -> bool:
    """Whether a step of ``cell`` is one of such a sum: it is asked about random numbers, and about the log of nothing.

    The least number there is stands for the log of nothing.
    """
    sizes = list(cell.state_sizes.values())
    width = cell.input_size
    reads_more = isinstance(cell, RolledCell) and bool(cell.captured_examples)
    if sizes != [width] or cell.output_size != width or reads_more or next(cell.parameters(), None) is not None:
        return False
    generator = torch.Generator().manual_seed(0)
    least = torch.finfo(torch.float32).min
    pairs = [
        tuple(spread * torch.randn(_ROWS, width, generator=generator) for _ in range(2))
        for spread in _SPREADS
        for _ in range(_DRAWS)
    ]
    seen = pairs[0][0]
    nothing, unseen = torch.full_like(seen, -math.inf), torch.full_like(seen, least)
    pairs += [(seen, unseen), (nothing, seen), (nothing, unseen)]
    with torch.no_grad():
        for z, state in pairs:
            y, after = cell.step(z, state)
            if not torch.equal(y, after):
                return False
            if not torch.allclose(y, torch.logaddexp(z, state).clamp(min=least), rtol=1e-6, atol=1e-5):
                return False
    return True


def emit_log_sums(
    builder: Builder, rec: Recurrence, lengths: ir.Value | None, valid: ir.Value | None
) -> list[ir.Value]:
    """[y [batch, time, size], the sum at the end of each row [batch, size]].

    valid: boolean [batch, time, 1], steps within ``lengths``; beyond them y is zero.
    """
    limits = np.finfo(rec.dtype.numpy())

    # Finite numbers stand for the infinities, of which no difference is a number.
    least, greatest, zero = (builder.constant(value, rec.dtype.numpy()) for value in (limits.min, limits.max, 0.0))
    start = builder.op("Unsqueeze", rec.states[0], builder.constant([1]))
    values = builder.op("Min", builder.op("Max", builder.op("Concat", start, rec.z, axis=1), least), greatest)
    sums = (
        _as_they_are(builder, values, least) if rec.dtype == ir.DataType.FLOAT else _doubled(builder, rec.dtype, values)
    )

    y = builder.op(
        "Slice", sums, builder.constant([1]), builder.constant([np.iinfo(np.int64).max]), builder.constant([1])
    )
    if lengths is None or valid is None:
        end = builder.op("Squeeze", builder.op("Gather", sums, builder.constant([-1]), axis=1), builder.constant([1]))
    else:
        y = builder.op("Where", valid, y, zero)
        end = builder.op("GatherND", sums, builder.op("Unsqueeze", lengths, builder.constant([1])), batch_dims=1)
    return [y, end]


def _as_they_are(builder: Builder, values: ir.Value, least: ir.Value) -> ir.Value:
    """Running sums of float32 ``values`` [batch, time, size] by float64, or doubled where that cannot hold them."""
    time = builder.constant([1])
    top = builder.op("ReduceMax", values, time)
    below = builder.op("Sub", values, top)
    # The log of nothing is far from every number, and adds nothing to any.  What is NaN is not within.
    below = builder.op("Where", builder.op("Equal", values, least), builder.constant(0.0, np.dtype(np.float32)), below)
    within = builder.op("GreaterOrEqual", below, builder.constant(-_SPREAD, np.dtype(np.float32)))
    all_within = builder.op(
        "Cast", builder.op("ReduceMin", builder.op("Cast", within, to=_INT32), keepdims=0), to=_BOOL
    )

    wide = builder.nested()
    largest = wide.op("Cast", top, to=_DOUBLE)
    terms = wide.op("Exp", wide.op("Sub", wide.op("Cast", values, to=_DOUBLE), largest))
    sums = wide.op("Add", wide.op("Log", wide.op("CumSum", terms, builder.constant(1))), largest)
    as_given = wide.op("Max", wide.op("Cast", sums, to=int(ir.DataType.FLOAT)), least)
    doubled = builder.nested()
    return builder.ops(
        "If",
        [all_within],
        1,
        then_branch=wide.subgraph([], [as_given], "within"),
        else_branch=doubled.subgraph([], [_doubled(doubled, ir.DataType.FLOAT, values)], "far"),
    )[0]


def _doubled(builder: Builder, dtype: ir.DataType, values: ir.Value) -> ir.Value:
    """Running sums of ``values`` [batch, time, size], finite numbers or NaN; of the greatest number, infinity."""
    limits = np.finfo(dtype.numpy())
    least, one = builder.constant(limits.min, dtype.numpy()), builder.constant(1.0, dtype.numpy())
    far = 2 ** np.arange(_DOUBLINGS)
    steps = builder.op("Shape", values, start=1, end=2)
    passes = builder.op("Less", _table(builder, "far", far), steps)
    trips = builder.op("ReduceSum", builder.op("Cast", passes, to=int(ir.DataType.INT64)), keepdims=0)

    body = builder.nested()
    index = body.input("i", ir.DataType.INT64, ())
    condition = body.input("go_on", ir.DataType.BOOL, ())
    sums = body.input("sums", dtype, ("batch", None, None))
    ends = body.op("Gather", _table(builder, "ends", -far[:, None]), index)
    pads = body.op("Gather", _table(builder, "pads", np.pad(far[:, None], [(0, 0), (1, 4)])), index)
    earlier = body.op("Pad", body.op("Slice", sums, body.constant([0]), ends, body.constant([1])), pads, least)
    top, low = body.op("Max", sums, earlier), body.op("Min", sums, earlier)
    more = body.op("Log", body.op("Add", body.op("Exp", body.op("Sub", low, top)), one))
    graph = body.subgraph([index, condition, sums], [body.op("Identity", condition), body.op("Add", top, more)], "body")
    found = builder.ops("Loop", [trips, builder.constant(True, bool), values], 1, body=graph)[0]
    greatest = builder.constant(limits.max, dtype.numpy())
    return builder.op("Where", builder.op("Less", found, greatest), found, builder.op("Add", found, greatest))


def _table(builder: Builder, name: str, values: np.ndarray) -> ir.Value:
    return initializer(builder.main, f"const/doublings/{name}", ir.tensor(values))
