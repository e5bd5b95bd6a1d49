"""Parts of a free axis as slices that hold at every size: ``chunk`` and ``split``, and ends that are counted backwards."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

aten = torch.ops.aten


def slice_free_parts(program: ExportedProgram) -> None:
    """Write every part of ``chunk`` or ``split`` into equal parts along an axis of no fixed size as a slice."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target not in (aten.chunk.default, aten.split.Tensor) or not _is_taken_apart(node):
            continue
        source, size, *rest = node.args
        shape = source.meta["val"].shape
        dim = int(rest[0] if rest else node.kwargs.get("dim", 0)) % len(shape)
        if not isinstance(shape[dim], torch.SymInt):
            continue
        with graph.inserting_before(node):
            if node.target is aten.chunk.default:
                whole = _noted(graph, aten.sym_size.int, (source, dim), shape[dim])
                rounded_up = _noted(graph, operator.add, (whole, size - 1), shape[dim] + (size - 1))
                size = _noted(graph, operator.floordiv, (rounded_up, size), rounded_up.meta["val"] // size)
            for user in list(node.users):
                _slice(graph, user, (source, dim), size)
        graph.erase_node(node)
    program.graph_module.recompile()


def count_ends_forwards(program: ExportedProgram) -> None:
    """Write every slice ``x[..., : -n]``, where n is computed from sizes, as ``x[..., : size - n]``.

    For a module that leaves the slice out where n is 0 (``if n: x = x[..., :-n]``) this holds at every size, and the other does
    not: the end -0 is the beginning.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is not aten.slice.Tensor or len(node.args) < 4 or not isinstance(node.args[3], Node):
            continue
        source, dim, _, end = node.args[:4]
        back, size = end.meta["val"], source.meta["val"].shape[dim]
        if isinstance(back, torch.SymInt) and back.node.hint is not None and back.node.hint < 0:
            with graph.inserting_before(node):
                whole = _noted(graph, aten.sym_size.int, (source, dim), size)
                forwards = _noted(graph, operator.add, (whole, end), size + back)
            node.update_arg(3, forwards)
    program.graph_module.recompile()


def _is_taken_apart(node: Node) -> bool:
    return all(user.target is operator.getitem and isinstance(user.args[1], int) for user in node.users)


def _slice(graph: Graph, part: Node, axis: tuple[Node, int], size: Any) -> None:
    """Put a slice in place of ``part``, which is one of several of ``size`` along an axis of a tensor."""
    value = size.meta["val"] if isinstance(size, Node) else size
    index: Any = part.args[1]
    start, end = (
        n * size if isinstance(size, int) else _noted(graph, operator.mul, (size, n), value * n)
        for n in (index, index + 1)
    )
    found = graph.call_function(aten.slice.Tensor, (*axis, start, end))
    found.meta = dict(part.meta)
    part.replace_all_uses_with(found)
    graph.erase_node(part)


def _noted(graph: Graph, function: Any, arguments: tuple[Any, ...], value: Any) -> Node:
    node = graph.call_function(function, arguments)
    node.meta["val"] = value
    return node
