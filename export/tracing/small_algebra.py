"""Linear algebra of small matrices that inputs decide, for which ONNX has no operator, written out: filters need it at each step.

Sizes are those of the trace, up to :data:`MOST`.  What depends on weights alone is computed once, see
:mod:`rnncore.export.tracing.settled_weights`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import numpy_helper
from onnxscript import opset20 as op
from torch.export import ExportedProgram

from rnncore.export.tracing.source_lines import line_of_node
from rnncore.runtime.errors import ExportError

MOST = 16
"""Rows of a matrix: each takes some fifteen nodes."""
MOST_TRIANGULAR = 128
"""Rows of a triangular one: twice as many take one step more."""


def refuse_large(program: ExportedProgram) -> None:
    """Raise ExportError, with the line, where ``program`` solves for matrices that are large, or of any size."""
    for node in program.graph_module.graph.nodes:
        if node.target in SMALL_ALGEBRA and node.target is not aten._cdist_forward.default:
            place = 1 if node.target is aten.cholesky_solve.default else 0
            rows = node.args[place].meta["val"].shape[-1]
            most = MOST_TRIANGULAR if node.target is aten.linalg_solve_triangular.default else MOST
            if not isinstance(rows, int) or rows > most:
                line = line_of_node(node)
                what = str(node.target).removeprefix("aten.").partition(".")[0].strip("_")
                raise ExportError(
                    f"{what} of matrices of {rows} rows{f' at {line}' if line else ''}: ONNX has no operator for it, and it is "
                    f"written out for up to {most} rows of fixed number only"
                )


def _constant(numbers: Any, dtype: Any = np.int64) -> Any:
    return op.Constant(value=numpy_helper.from_array(np.asarray(numbers, dtype)))


def _part(value: Any, low: int, high: int, axis: int) -> Any:
    """The entries from ``low`` to below ``high`` along an axis counted from the end."""
    return op.Slice(value, _constant([low]), _constant([high]), _constant([axis]))


def _zero(value: Any) -> Any:
    return like(value, 0.0)


def like(value: Any, number: float) -> Any:
    """A number in the dtype of ``value``."""
    made: Any = op.Constant(value_float=number)
    return op.CastLike(made, value)


def _solved(a: Any, b: Any, n: int) -> Any:
    """X of A X = B, [..., n, m], by Gauss and Jordan with the largest pivot of each column."""
    both = op.Concat(a, b, axis=-1)
    rows = _constant(np.arange(n)[:, None])
    for k in range(n):
        here = _constant((np.arange(n) == k)[:, None], np.bool_)
        largest = op.ArgMax(op.Abs(_part(_part(both, k, n, -2), k, k + 1, -1)), axis=-2, keepdims=1)
        chosen = op.Equal(rows, op.Add(largest, _constant(k)))
        pivots = op.ReduceSum(op.Where(chosen, both, _zero(both)), _constant([-2]), keepdims=1)
        both = op.Where(here, pivots, op.Where(chosen, _part(both, k, k + 1, -2), both))
        row = op.Div(pivots, _part(pivots, k, k + 1, -1))
        others = op.Where(here, _zero(both), _part(both, k, k + 1, -1))
        both = op.Where(here, row, op.Sub(both, op.Mul(others, row)))
    return _part(both, n, 2**31, -1)


def _eye(n: int, matrix: Any) -> Any:
    """The unit matrix in the shape and dtype of ``matrix`` [..., n, n]."""
    return op.Add(op.Mul(matrix, _zero(matrix)), op.CastLike(_constant(np.eye(n), np.float32), matrix))


def _inverse(a: Any, check_errors: bool = False) -> tuple[Any, Any]:
    n = a.shape[-1]
    return _solved(a, _eye(n, a), n), op.Constant(value_int=0)


def _turned(matrix: Any, rank: int) -> Any:
    """With its last two axes exchanged."""
    return op.Transpose(matrix, perm=[*range(rank - 2), rank - 1, rank - 2])


def _solved_from(side: bool, a: Any, b: Any, n: int, rank: int) -> Any:
    """X of A X = B for ``side`` left, of X A = B for right."""
    return _solved(a, b, n) if side else _turned(_solved(_turned(a, rank), _turned(b, rank), n), rank)


def _solve(a: Any, b: Any, left: bool = True, check_errors: bool = False) -> tuple[Any, Any, Any, Any]:
    n = a.shape[-1]
    is_vector = len(b.shape) == 1 or (len(b.shape) == len(a.shape) - 1 and list(b.shape) == list(a.shape)[:-1])
    if is_vector:
        b = op.Unsqueeze(b, _constant([-1]))
    found = _solved_from(left, a, b, n, len(a.shape))
    if is_vector:
        found = op.Squeeze(found, _constant([-1]))
    nothing = op.Constant(value_int=0)
    return found, nothing, nothing, nothing


def _triangular(a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    n = a.shape[-1]
    beyond = (1 if upper else -1) if unitriangular else 0
    triangle = op.Trilu(a, _constant(beyond), upper=int(upper))
    if n > MOST:
        return _by_doubling(triangle, b, n, left=left, unitriangular=unitriangular)
    if unitriangular:
        triangle = op.Add(triangle, _eye(n, a))
    return _solved_from(left, triangle, b, n, len(a.shape))


def _by_doubling(triangle: Any, b: Any, n: int, *, left: bool, unitriangular: bool) -> Any:
    """X of (D + N) X = B with a strict triangle N: (1 + P)(1 + P^2)(1 + P^4)... D^-1 B of P = -D^-1 N, whose nth power is 0.

    ``triangle`` is N alone for ``unitriangular``.  Not ``left``: X of X (D + N) = B.
    """
    power = op.Neg(triangle)
    if not unitriangular:
        eye = _eye(n, triangle)
        diagonal = op.ReduceSum(op.Mul(triangle, eye), _constant([-1 if left else -2]), keepdims=1)
        power = op.Div(op.Neg(op.Sub(triangle, op.Mul(triangle, eye))), diagonal)
        b = op.Div(b, diagonal)
    for step in range((n - 1).bit_length()):
        power = op.MatMul(power, power) if step else power
        b = op.Add(b, op.MatMul(power, b) if left else op.MatMul(b, power))
    return b


def _cholesky(a: Any, upper: bool = False, check_errors: bool = False) -> tuple[Any, Any]:
    n = a.shape[-1]
    rest, columns = a, []
    for k in range(n):
        below = _constant((np.arange(n) >= k)[:, None], np.bool_)
        column = op.Where(below, _part(rest, k, k + 1, -1), _zero(rest))
        column = op.Div(column, op.Sqrt(_part(column, k, k + 1, -2)))
        columns.append(column)
        rest = op.Sub(rest, op.Mul(column, _turned_column(column)))
    found = op.Concat(*columns, axis=-1)
    return (_turned(found, len(a.shape)) if upper else found), op.Constant(value_int=0)


def _turned_column(column: Any) -> Any:
    """A column [..., n, 1] as a row [..., 1, n]."""
    return op.Unsqueeze(op.Squeeze(column, _constant([-1])), _constant([-2]))


def _cholesky_solve(b: Any, factor: Any, upper: bool = False) -> Any:
    n = factor.shape[-1]
    turned = _turned(factor, len(factor.shape))
    return _solved(op.MatMul(turned, factor) if upper else op.MatMul(factor, turned), b, n)


def _distances(a: Any, b: Any, p: float = 2.0, compute_mode: int | None = None) -> Any:
    """Of each row of ``a`` to each of ``b``: [..., rows, others]."""
    apart = op.Abs(op.Sub(op.Unsqueeze(a, _constant([-2])), op.Unsqueeze(b, _constant([-3]))))
    last = _constant([-1])
    if p == float("inf"):
        return op.ReduceMax(apart, last, keepdims=0)
    if p == 1.0:
        return op.ReduceSum(apart, last, keepdims=0)
    if p == 2.0:
        return op.Sqrt(op.ReduceSum(op.Mul(apart, apart), last, keepdims=0))
    power = like(apart, p)
    return op.Pow(op.ReduceSum(op.Pow(apart, power), last, keepdims=0), op.Reciprocal(power))


aten = torch.ops.aten
SMALL_ALGEBRA: dict[Any, Any] = {
    aten.linalg_inv.default: lambda a: _inverse(a)[0],
    aten.inverse.default: lambda a: _inverse(a)[0],
    aten.linalg_solve.default: lambda a, b, left=True: _solve(a, b, left)[0],
    aten.linalg_cholesky.default: lambda a, upper=False: _cholesky(a, upper)[0],
    aten.linalg_inv_ex.default: _inverse,
    aten._linalg_solve_ex.default: _solve,
    aten.linalg_solve_triangular.default: _triangular,
    aten.linalg_cholesky_ex.default: _cholesky,
    aten.cholesky_solve.default: _cholesky_solve,
    aten._cdist_forward.default: _distances,
}
