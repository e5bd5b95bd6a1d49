"""Products of each head on its own axis: torch folds heads into the batch, which costs a ``Reshape`` on every side.

``Reshape(MatMul(Reshape(q), Reshape(k)))`` of [batch * heads, ...] is the product of [batch, heads, ...].  A column times a row
is arithmetic: nothing is summed up.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.replace import put_in_place

Dims = list[int | str | None]


def keep_heads_apart(graph: ir.Graph) -> None:
    """Write such products in ``graph`` on four axes, in place; its first axis is that of the rows."""
    names = Builder("heads", graph)
    for node in list(graph):
        if node.op_type == "MatMul" and not node.domain:
            apart = [_apart(value) for value in node.inputs]
            (left, right) = apart if len(apart) == 2 else (None, None)
            if left is not None and right is not None and left[1][:2] == right[1][:2]:
                _write(graph, node, names.nested(), left, right)


def _apart(value: ir.Value | None) -> tuple[ir.Value, Dims] | None:
    """(what ``value`` [batch * heads, m, n] is made of, [batch, heads, m, n]); None if it is nothing of that kind."""
    node = None if value is None else value.producer()
    folded = dims_of(value)
    if node is None or node.op_type != "Reshape" or len(folded) != 3 or isinstance(folded[0], int):
        return None
    source = node.inputs[0]
    rows, *sizes = dims_of(source) or [None]
    if source is None or rows is None or isinstance(rows, int) or not _are_numbers([*sizes, *folded[1:]]):
        return None
    numbers, each = prod(sizes), prod(folded[1:])  # type: ignore[arg-type]
    heads, rest = divmod(numbers, each) if each else (0, 1)
    return (source, [rows, heads, *folded[1:]]) if not rest and heads > 1 else None


def _are_numbers(dims: Dims) -> bool:
    return all(isinstance(size, int) for size in dims)


def _write(graph: ir.Graph, node: ir.Node, builder: Builder, *operands: tuple[ir.Value, Dims]) -> None:
    (_, left), (_, right) = operands
    inputs = [
        value
        if dims_of(value) == dims
        else _typed(builder.op("Reshape", value, builder.constant([-1, *dims[1:]])), value, dims)
        for value, dims in operands
    ]
    old = node.outputs[0]
    product = _typed(builder.op("Mul" if left[3] == 1 else "MatMul", *inputs), old, [*left[:3], right[3]])
    folded = builder.op("Reshape", product, builder.constant([-1, *dims_of(product)[2:]]))
    folded.type, folded.shape = old.type, old.shape
    graph.insert_before(node, builder.nodes)
    for user, _ in list(old.uses()):
        if _only_reshapes(user):
            if dims_of(user.outputs[0]) == dims_of(product) and not user.outputs[0].is_graph_output():
                put_in_place(user.outputs[0], product)
            else:
                user.replace_input_with(0, product)
    put_in_place(old, folded)
    graph.remove(node, safe=True)
    if not folded.uses() and not folded.is_graph_output():
        graph.remove(folded.producer(), safe=True)  # type: ignore[arg-type]


def _only_reshapes(node: ir.Node) -> bool:
    """Whether ``node`` is a ``Reshape`` that takes no size from its input."""
    if node.op_type != "Reshape":
        return False
    shape = node.inputs[1]
    known = None if shape is None or shape.const_value is None else shape.const_value.numpy()
    return known is not None and bool(np.all(known != 0))


def _typed(value: ir.Value, like: ir.Value, dims: Dims) -> ir.Value:
    value.type, value.shape = like.type, ir.Shape(dims)
    return value
