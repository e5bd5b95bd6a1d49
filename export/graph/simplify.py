"""Nodes that a graph of torch's exporter can do without: each costs onnxruntime half a microsecond at every call.

onnxruntime finds none of these by itself: it does not know which sizes of two values are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import are_plain, copying, dims_of
from rnncore.export.graph.replace import put_in_place

_LARGE = {ir.DataType.FLOAT: 17.0, ir.DataType.FLOAT16: 9.0}
"""Of numbers greater than these ``log(1 + exp(x))`` is x, in such floats."""
_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def copy_sizes(graph: ir.Graph) -> None:
    """Let each ``Reshape`` to sizes that its input has at the same place copy them, in place of looking them up."""
    builder = Builder("shapes", graph)
    for node in [n for n in graph if n.op_type == "Reshape" and not n.domain]:
        value, target = node.inputs
        asked = _sizes(target)
        if asked is None or not any(isinstance(size, str) for size in asked):
            continue
        computed = "allowzero" in node.attributes and not are_plain(asked)
        copied = [] if computed else copying(_known(value), asked)
        if copied:
            node.replace_input_with(1, builder.constant(copied))
            node.attributes.pop("allowzero", None)  # with which 0 copies nothing; none was asked for


def drop_unread_results(graph: ir.Graph) -> None:
    """A ``LayerNormalization`` tells its mean and deviation, too, which nobody reads."""
    for node in graph:
        told = [value for value in node.outputs[1:] if value.uses() or value.is_graph_output()]
        if node.op_type == "LayerNormalization" and not told:
            node.resize_outputs(1)


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
        _multiply_instead(node, [x, matrix], back, "any_rank")


def multiply_unfolded(graph: ir.Graph) -> None:
    """Products of matrices for each row, step and head need not fold these into fewer axes before, and unfold them behind."""
    for node in [n for n in graph if n.op_type == "MatMul" and not n.domain]:
        sources = [_unfolded(value) for value in node.inputs]
        if None in sources or node.outputs[0].is_graph_output():
            continue
        left, right = (_known(source) for source in sources)
        wanted = [*left[:-1], right[-1]]
        users = [user for user, _ in node.outputs[0].uses()]
        if left[:-2] != right[:-2] or any(n.op_type != "Reshape" or _known(n.outputs[0]) != wanted for n in users):
            continue
        _multiply_instead(node, sources, users, "unfolded")


def _multiply_instead(node: ir.Node, factors: Sequence[ir.Value | None], views: Sequence[ir.Node], name: str) -> None:
    """The product of ``factors`` in place of ``views`` of what ``node`` gives."""
    product = _beside(node, "MatMul", factors, name)
    for view in views:
        put_in_place(view.outputs[0], product)
        assert isinstance(view.graph, ir.Graph)
        view.graph.remove(view, safe=True)


def _beside(node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], name: str) -> ir.Value:
    """What a new node gives, which is put behind ``node`` and named after it."""
    new = ir.Node("", op_type, inputs, num_outputs=1, name=f"{node.name}/{name}")
    new.outputs[0].name = f"{new.name}.0"
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_after(node, new)
    return new.outputs[0]


def _unfolded(value: ir.Value | None) -> ir.Value | None:
    """[a, b, ..., m, n] where ``value`` is [a * b, ..., m, n] of it or the like; None if it is nothing of that kind."""
    node = value.producer() if value is not None else None
    source = node.inputs[0] if node is not None and node.op_type == "Reshape" else None
    before, after = _known(source), dims_of(value)
    alike = len(before) > len(after) > 2 and before[-2:] == after[-2:] and are_plain(before)
    return source if alike else None


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


def choose_by_size(graph: ir.Graph) -> None:
    """``x + 0.5`` where x is not negative and ``Sigmoid(x)`` elsewhere is the larger of both, at any depth.

    The activation of minGRU and minLSTM (Feng et al. 2024, "Were RNNs All We Needed?", appendix B.3).  No sigmoid is steeper
    than 1/4, so that the line lies above it on the right of 0, where they meet, and below it on the left.
    """
    for node in list(ir.traversal.RecursiveGraphIterator(graph)):
        if node.op_type != "Where" or node.domain or None in node.inputs:
            continue
        condition, *chosen = node.inputs
        asked = condition.producer()  # type: ignore[union-attr]
        if asked is None or asked.op_type not in _COMPARISONS or not _is_number(asked.inputs[1], 0.0):
            continue
        line, curve = chosen if asked.op_type.startswith("Greater") else reversed(chosen)
        x, own = asked.inputs[0], [value.producer() for value in (line, curve)]  # type: ignore[union-attr]
        if [None if n is None else n.op_type for n in own] != ["Add", "Sigmoid"] or own[1].inputs[0] is not x:  # type: ignore[union-attr]
            continue
        one, other = own[0].inputs  # type: ignore[union-attr]
        if (one is x and _is_number(other, 0.5)) or (other is x and _is_number(one, 0.5)):
            put_in_place(node.outputs[0], _beside(node, "Max", [line, curve], "larger"))
            assert isinstance(node.graph, ir.Graph)
            node.graph.remove(node, safe=True)


def _is_number(value: ir.Value | None, number: float) -> bool:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.size == 1 and tensor.numpy().item() == number


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
