"""Running sums of exponentials, as logarithms, by doubling distances: the steps that a chunk takes are a logarithm of its length.

``y[t] = log(exp(start) + exp(x[0]) + ... + exp(x[t]))`` is what minimal recurrent networks compute over time (Feng et al. 2024,
"Were RNNs all we needed?", appendix B).  Step by step it costs ten nodes for every step; since it is associative, each number
can also be put together from two that reach half as far back.
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

_DRAWS, _ROWS = 4, 5
_SPREADS = (1.0, 30.0)
_DOUBLINGS = 40
"""No call has more steps than two to this."""


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
    least, greatest, zero, one = (
        builder.constant(value, rec.dtype.numpy()) for value in (limits.min, limits.max, 0.0, 1.0)
    )
    start = builder.op("Unsqueeze", rec.states[0], builder.constant([1]))
    values = builder.op("Min", builder.op("Max", builder.op("Concat", start, rec.z, axis=1), least), greatest)
    far = 2 ** np.arange(_DOUBLINGS)
    steps = builder.op("Shape", values, start=1, end=2)
    passes = builder.op("Less", _table(builder, "far", far), steps)
    trips = builder.op("ReduceSum", builder.op("Cast", passes, to=int(ir.DataType.INT64)), keepdims=0)

    body = builder.nested()
    index = body.input("i", ir.DataType.INT64, ())
    condition = body.input("go_on", ir.DataType.BOOL, ())
    sums = body.input("sums", rec.dtype, ("batch", None, None))
    ends = body.op("Gather", _table(builder, "ends", -far[:, None]), index)
    pads = body.op("Gather", _table(builder, "pads", np.pad(far[:, None], [(0, 0), (1, 4)])), index)
    earlier = body.op("Pad", body.op("Slice", sums, body.constant([0]), ends, body.constant([1])), pads, least)
    top, low = body.op("Max", sums, earlier), body.op("Min", sums, earlier)
    more = body.op("Log", body.op("Add", body.op("Exp", body.op("Sub", low, top)), one))
    graph = body.subgraph([index, condition, sums], [body.op("Identity", condition), body.op("Add", top, more)], "body")
    sums = builder.ops("Loop", [trips, builder.constant(True, bool), values], 1, body=graph)[0]

    y = builder.op(
        "Slice", sums, builder.constant([1]), builder.constant([np.iinfo(np.int64).max]), builder.constant([1])
    )
    y = builder.op("Where", builder.op("Less", y, greatest), y, builder.op("Add", y, greatest))
    if lengths is None or valid is None:
        end = builder.op("Squeeze", builder.op("Gather", sums, builder.constant([-1]), axis=1), builder.constant([1]))
    else:
        y = builder.op("Where", valid, y, zero)
        end = builder.op("GatherND", sums, builder.op("Unsqueeze", lengths, builder.constant([1])), batch_dims=1)
    return [y, end]


def _table(builder: Builder, name: str, values: np.ndarray) -> ir.Value:
    return initializer(builder.main, f"const/doublings/{name}", ir.tensor(values))
