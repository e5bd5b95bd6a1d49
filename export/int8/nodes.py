"""int8 products and tables in standard ONNX operators: how numbers are rounded, and the nodes that compute with them.

A weight is int8 with one scale for each output channel, w ~ scale * q, and |q| <= 64: 7 bits.  Processors without dot
product instructions (AVX2) add pairs of products in 16 bits, where 2 * 255 * 64 fits and 2 * 255 * 127 does not; with
8 bits the same file is right on one machine and wrong on another (an error of 0.24 instead of 0.02 was measured).

Activations are uint8 around a zero of 128, x ~ scale * (q - 128).  Their scale never depends on anything but the row
itself: other rows of the batch, other time steps and padding leave a row's answer alone, and the sums are integers, the
same in any order.  That is why there is no ``DynamicQuantizeLinear`` here, whose one scale comes from the whole tensor:
with it a loud stream would blur a quiet one in the same batch, and chunks would differ from the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder, initializer
from rnncore.export.int8.ranges import Range

WEIGHT_LEVELS = 64
TABLE_LEVELS = 127  # a table is looked up, not multiplied with: nothing can overflow
ACTIVATION_LEVELS = 127
ZERO = 128
SMALLEST_ROW = 1e-30  # largest number of a row that is all zeros; keeps 0 / 0 away

Array = np.ndarray


def round_columns(weight: Array, levels: int = WEIGHT_LEVELS) -> tuple[Array, Array]:
    """(q int8, scale float32 [columns]) with weight [rows, columns] ~ q * scale and |q| <= levels."""
    scale = np.abs(weight).max(0).astype(np.float64) / levels
    # Numbers so small that their scale is no normal float32 are zeros; so are columns of zeros.
    scale = np.where(scale < np.finfo(np.float32).tiny, 1.0, scale).astype(np.float32)
    return np.clip(np.rint(weight / scale), -levels, levels).astype(np.int8), scale


@dataclass(frozen=True)
class Rounded:
    """An activation as uint8: x ~ (q - zero) * step * row; ``row`` [..., 1] is None where the scale is fixed."""

    q: ir.Value
    zero: ir.Value
    step: float
    row: ir.Value | None


def round_fixed(builder: Builder, x: ir.Value, known: Range) -> Rounded:
    """``x``, which is proved to lie in a finite range, with a scale that fits that range.

    A NaN in a state is not seen here.  It is in what the step adds to the product, unless a projection comes last.
    """
    if known.low >= 0.0:
        step, zero = known.high / 255, builder.constant(0, np.uint8)
    else:
        step, zero = known.largest / ACTIVATION_LEVELS, builder.constant(ZERO, np.uint8)
    step = step or 1.0
    return Rounded(builder.op("QuantizeLinear", x, builder.constant(step, np.float32), zero), zero, step, None)


def round_rows(builder: Builder, x: ir.Value) -> Rounded:
    """``x`` [..., features], each row with a scale of its own, made from its largest number.

    A row with a NaN or an infinity in it comes out of the product as NaN.
    """
    step, zero = 1 / ACTIVATION_LEVELS, builder.constant(ZERO, np.uint8)
    size, last = builder.op("Abs", x), builder.constant([-1])
    largest = builder.op("ReduceMax", size, last, keepdims=1)
    # 0, or NaN if the row holds a NaN or an infinity: integers cannot say so, and a maximum may pass over it.
    broken = builder.op("Mul", builder.op("ReduceSum", size, last, keepdims=1), builder.constant(0, np.float32))
    row = builder.op("Add", builder.op("Max", largest, builder.constant(SMALLEST_ROW, np.float32)), broken)
    q = builder.op("QuantizeLinear", builder.op("Div", x, row), builder.constant(step, np.float32), zero)
    return Rounded(q, zero, step, row)


@dataclass(frozen=True)
class Weight:
    """The second factor of a product: w ~ q * scale, with q int8 [rows, columns] and scale float32 [columns]."""

    name: str
    q: ir.Value
    scale: Array


def multiply(builder: Builder, x: Rounded, weight: Weight, alpha: float) -> ir.Value:
    """alpha times the product of ``x`` and ``weight``, as float32."""
    y = builder.op("Cast", builder.op("MatMulInteger", x.q, weight.q, x.zero), to=int(ir.DataType.FLOAT))
    columns = stored(builder.main, f"{weight.name}.scale", (weight.scale * (alpha * x.step)).astype(np.float32))
    y = builder.op("Mul", y, columns)
    return y if x.row is None else builder.op("Mul", y, x.row)


def look_up(builder: Builder, ids: ir.Value, table: ir.Value, scale: ir.Value) -> ir.Value:
    """Rows ``ids`` of an int8 ``table`` [rows, features] with ``scale`` [rows, 1], as float32."""
    rows = builder.op("Cast", builder.op("Gather", table, ids, axis=0), to=int(ir.DataType.FLOAT))
    return builder.op("Mul", rows, builder.op("Gather", scale, ids, axis=0))


def look_up_column(builder: Builder, ids: ir.Value, rank: int, table: ir.Value, scale: ir.Value) -> ir.Value:
    """The same from the weight of a product that shares its numbers: columns of ``table`` [features, rows]."""
    columns = builder.op("Gather", table, ids, axis=1)
    rows = builder.op("Transpose", columns, perm=[*range(1, rank + 1), 0])
    return builder.op(
        "Mul", builder.op("Cast", rows, to=int(ir.DataType.FLOAT)), builder.op("Gather", scale, ids, axis=0)
    )


def stored(main: ir.Graph, name: str, array: Array) -> ir.Value:
    """``array`` as an initializer called ``name``, or with a number behind it if the name holds something else."""
    unique, count = name, 1
    while unique in main.initializers:
        value = main.initializers[unique].const_value
        if value is not None and value.dtype.numpy() == array.dtype and np.array_equal(value.numpy(), array):
            break
        count += 1
        unique = f"{name}.{count}"
    return initializer(main, unique, ir.tensor(array, name=unique))
