"""Nodes that a graph of torch's exporter can do without: each costs onnxruntime half a microsecond at every call.

onnxruntime finds none of these by itself: it does not know which sizes of two values are the same.
"""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import are_plain, dims_of
from rnncore.export.graph.replace import put_in_place

_LARGE = {ir.DataType.FLOAT: 17.0, ir.DataType.FLOAT16: 9.0}
"""Of numbers greater than these ``log(1 + exp(x))`` is x, in such floats."""
_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze")


def copy_sizes(graph: ir.Graph) -> None:
    """Let each ``Reshape`` to sizes that its input has at the same place copy them, in place of looking them up."""
    builder = Builder("shapes", graph)
    for node in [n for n in graph if n.op_type == "Reshape" and not n.domain]:
        value, target = node.inputs
        asked = _sizes(target)
        own = _known(value)
        if asked is None or not any(isinstance(size, str) for size in asked):
            continue
        computed = "allowzero" in node.attributes and not are_plain(asked)
        copied = [
            0 if isinstance(size, str) and own[place : place + 1] == [size] and not computed else size
            for place, size in enumerate(asked)
        ]
        if all(isinstance(size, int) for size in copied):
            node.replace_input_with(1, builder.constant(copied))
            node.attributes.pop("allowzero", None)  # with which 0 copies nothing; none was asked for


def drop_reshapes(graph: ir.Graph) -> None:
    """Let values of the sizes that they had before be what they were."""
    for node in [n for n in graph if n.op_type in _RESHAPES and not n.domain]:
        value, dims = node.inputs[0], _known(node.outputs[0])
        while value is not None and dims and are_plain(dims):
            if _known(value) == dims:
                if not node.outputs[0].is_graph_output() or not (value.is_graph_input() or value.is_graph_output()):
                    put_in_place(node.outputs[0], value)
                break
            before = value.producer()
            value = (
                before.inputs[0] if before is not None and before.op_type in _RESHAPES and not before.domain else None
            )


def multiply_unreshaped(graph: ir.Graph) -> None:
    """Products with a matrix take values of any rank: no ``Reshape`` to two axes before them, none back behind them."""
    for node in [n for n in graph if n.op_type == "MatMul" and not n.domain]:
        flat, matrix = node.inputs
        before = flat.producer() if flat is not None else None
        behind = [user for user, _ in node.outputs[0].uses()]
        if before is None or before.op_type != "Reshape" or len(_known(flat)) != 2 or len(_known(matrix)) != 2:
            continue
        x = before.inputs[0]
        width, columns = _known(matrix)
        if len(_known(x)) < 3 or _known(x)[-1] != width or not isinstance(width, int) or not isinstance(columns, int):
            continue
        back = [n for n in behind if n.op_type == "Reshape" and _sizes(n.inputs[1]) == [*_known(x)[:-1], columns]]
        if not back or node.outputs[0].is_graph_output():
            continue
        product = ir.Node("", "MatMul", [x, matrix], num_outputs=1, name=f"{node.name}/any_rank")
        product.outputs[0].name = f"{product.name}.0"
        graph.insert_after(node, product)
        for reshape in back:
            put_in_place(reshape.outputs[0], product.outputs[0])
            graph.remove(reshape, safe=True)


def leave_large_to_softplus(graph: ir.Graph) -> None:
    """Drop the choice of x itself where ``Softplus(x)`` is x by itself, at any depth.

    Only for onnxruntime, whose ``Softplus`` does not overflow.
    """
    for node in list(ir.traversal.RecursiveGraphIterator(graph)):
        if node.op_type != "Where" or None in node.inputs:
            continue
        condition, x, otherwise = node.inputs
        asked, soft = condition.producer(), otherwise.producer()  # type: ignore[union-attr]
        if asked is None or soft is None or (asked.op_type, soft.op_type) != ("Greater", "Softplus"):
            continue
        bound = ir.convenience.get_const_tensor(asked.inputs[1]) if asked.inputs[1] is not None else None
        limit = _LARGE.get(bound.dtype) if bound is not None and bound.size == 1 else None
        if asked.inputs[0] is x and soft.inputs[0] is x and limit is not None and bound.numpy().item() >= limit:  # type: ignore[union-attr]
            put_in_place(node.outputs[0], soft.outputs[0])
            assert isinstance(node.graph, ir.Graph)
            node.graph.remove(node, safe=True)


def _known(value: ir.Value | None) -> list[int | str]:
    """The sizes of ``value``; nothing if one of them is not known."""
    dims = dims_of(value)
    return [] if None in dims else [d for d in dims if d is not None]


def _sizes(target: ir.Value | None) -> list[int | str] | None:
    """The sizes that ``target`` [rank] holds: numbers, names of sizes; None for what may be something else."""
    node = target.producer() if target is not None else None
    if target is None or node is None:
        tensor = None if target is None else ir.convenience.get_const_tensor(target)
        sizes = None if tensor is None else tensor.numpy().ravel().tolist()
        return sizes if sizes is not None and all(size > 0 for size in sizes) else None
    if node.op_type == "Concat":
        parts = [_sizes(part) for part in node.inputs]
        return None if None in parts else [size for part in parts if part is not None for size in part]
    if node.op_type == "Shape":
        dims = _known(node.inputs[0])
        start, end = (node.attributes[name].as_int() if name in node.attributes else None for name in ("start", "end"))
        return dims[start:end] or None
    return None
