"""``Softplus`` of many numbers in vector code, which onnxruntime has for ``Exp`` and ``Log`` and not for it.

``softplus(x) = max(x, 0) + log(1 + exp(-|x|))``, whose second part ``softplus(-x)`` shares.  Of a tiny ``u``, ``log(1 + u)`` is
what rounding has left of it in ``s = 1 + u``, put right to first order: ``log(s) + (u - (s - 1)) / s`` (the error of ``s`` is
known exactly, as in Kahan's ``log1p``).  A dozen nodes for one: worth it from some hundred numbers on.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.replace import put_in_place

_MANY = 256
"""Numbers from which on a dozen nodes are faster: below it onnxruntime takes some 20 ns for each."""


def branch_softplus(graph: ir.Graph) -> None:
    """Let each ``Softplus`` of float32 numbers over free axes, outside of loops, be written out where a call has many."""
    known: dict[tuple[object, ...], ir.Value] = {}
    for number, (x, plain, mirrored) in enumerate(list(_groups(graph))):
        builder = Builder(f"softplus/{number}", graph)
        sizes = tuple(dims_of(x))
        many = known.get(sizes)
        if many is None:
            many = _is_many(builder, x)
            if None not in sizes:
                known[sizes] = many
        wanted = [nodes for nodes in (plain, mirrored) if nodes]
        written, asked = builder.nested(), builder.nested()
        rest = _small_part(written, x)
        then = [_with_sign(written, x, rest, turned=nodes is mirrored) for nodes in wanted]
        otherwise = [asked.op("Softplus", asked.op("Neg", x) if nodes is mirrored else x) for nodes in wanted]
        results = builder.ops(
            "If",
            [many],
            len(wanted),
            then_branch=written.subgraph([], then, "many"),
            else_branch=asked.subgraph([], otherwise, "few"),
        )
        graph.insert_before(min((*plain, *mirrored), key=list(graph).index), builder.nodes)
        for nodes, result in zip(wanted, results, strict=True):
            for node in nodes:
                put_in_place(node.outputs[0], result)
                graph.remove(node, safe=True)


def _is_many(builder: Builder, x: ir.Value) -> ir.Value:
    """Asked of the shape, which a session that knows it has answered once and for all."""
    count = builder.op("ReduceProd", builder.op("Shape", x), keepdims=0)
    return builder.op("Less", builder.constant(_MANY), count)


def _small_part(builder: Builder, x: ir.Value) -> ir.Value:
    """``log(1 + exp(-|x|))``."""
    one = builder.constant(1.0, np.float32)
    u = builder.op("Exp", builder.op("Neg", builder.op("Abs", x)))
    s = builder.op("Add", u, one)
    lost = builder.op("Sub", u, builder.op("Sub", s, one))
    return builder.op("Add", builder.op("Log", s), builder.op("Div", lost, s))


def _with_sign(builder: Builder, x: ir.Value, rest: ir.Value, *, turned: bool) -> ir.Value:
    return builder.op("Add", builder.op("Relu", builder.op("Neg", x) if turned else x), rest)


def _groups(graph: ir.Graph) -> Iterator[tuple[ir.Value, list[ir.Node], list[ir.Node]]]:
    """Each x with the nodes that give softplus(x) and those that give softplus(-x)."""
    found: dict[ir.Value, tuple[list[ir.Node], list[ir.Node]]] = {}
    for node in graph:
        if node.op_type != "Softplus" or node.domain or (x := node.inputs[0]) is None:
            continue
        negated = x.producer()
        mirrored = negated is not None and negated.op_type == "Neg" and negated.inputs[0] is not None
        base = negated.inputs[0] if mirrored else x  # type: ignore[union-attr]
        found.setdefault(base, ([], []))[mirrored].append(node)  # type: ignore[arg-type]
    for x, (plain, mirrored_nodes) in found.items():
        if x.dtype == ir.DataType.FLOAT and any(not isinstance(size, int) for size in dims_of(x)):
            yield x, plain, mirrored_nodes
