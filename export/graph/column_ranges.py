"""Parts of a value: some of its columns, which ``Split`` cuts out and ``Concat`` puts side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder

ColumnRange = tuple[tuple[int, int], ...]
"""Columns side by side: ranges in ascending order, each its first column and the one after the last."""

ELEMENTWISE = frozenset(
    [
        *("Abs", "Add", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"),
        *("HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Pow", "Reciprocal", "Relu"),
        *("Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh", "ThresholdedRelu"),
    ]
)
"""Operators whose every output is computed from the inputs at its own place."""
ARITHMETIC = ELEMENTWISE | {
    *("And", "Cast", "Equal", "Greater", "GreaterOrEqual", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Where"),
}
"""The same, with those that take or give other types."""


def split(builder: Builder, value: ir.Value, parts: Sequence[ColumnRange], width: int, axis: int) -> list[ir.Value]:
    """``parts`` of ``value``, disjoint, along an axis of ``width``."""
    bounds = sorted({0, width, *(bound for part in parts for ends in part for bound in ends)})
    sizes = np.diff(bounds)
    if len(sizes) == 1:
        return [value]
    cut = builder.ops("Split", [value, builder.constant(sizes)], len(sizes), axis=axis)
    return [_side_by_side(builder, [cut[bounds.index(first)] for first, _ in part], axis) for part in parts]


def _side_by_side(builder: Builder, values: Sequence[ir.Value], axis: int) -> ir.Value:
    return values[0] if len(values) == 1 else builder.op("Concat", *values, axis=axis)


def width_of(part: ColumnRange) -> int:
    """Number of columns."""
    return sum(last - first for first, last in part)


def shifted(part: Sequence[tuple[int, int]], by: int) -> ColumnRange:
    """``part`` so many columns further on, ranges that touch made one."""
    ranges: list[tuple[int, int]] = []
    for first, last in part:
        start = ranges.pop()[0] if ranges and ranges[-1][1] == first + by else first + by
        ranges.append((start, last + by))
    return tuple(ranges)


def part_or_whole(value: ir.Value, part: ColumnRange | None) -> ColumnRange | None:
    """``part``, None if that is all of ``value``."""
    return None if part == ((0, column_count(value)),) else part


def disjoint(parts: Collection[ColumnRange]) -> bool:
    """Whether no column is in two of them."""
    ordered = sorted(ends for part in parts for ends in part)
    return all(before[1] <= after[0] for before, after in pairwise(ordered))


def column_count(value: ir.Value, axis: int = -1) -> int | None:
    """Size of an axis, 0 for a number without axes, None where it is not known."""
    shape = value.shape if value.const_value is None else value.const_value.shape
    if shape is None:
        return None
    if len(shape) == 0:
        return 0
    size = shape[axis]
    return size if isinstance(size, int) else None


def split_sizes(node: ir.Node) -> list[int] | None:
    """Sizes of a ``Split`` along the last axis, None for any other node."""
    if node.op_type != "Split" or node.domain or node.inputs[0] is None:
        return None
    shape = node.inputs[0].shape
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    if shape is None or axis not in (-1, len(shape) - 1):
        return None
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None:
        return None if given.const_value is None else [int(n) for n in given.const_value.numpy()]
    sizes = [column_count(value) for value in node.outputs]
    return None if None in sizes else sizes  # type: ignore[return-value]
