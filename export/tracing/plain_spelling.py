"""Operators that torch writes as others before it translates them, as these others: a second trace is spared for them.

Nearly all are other views of a tensor, or conversions, spelled on the sizes as they are, so that the numbers stay the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

aten = torch.ops.aten
Spelled = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""Target, positional and named arguments of the operator instead."""


def spell_plainly(program: ExportedProgram) -> Callable[[], None]:
    """Replace such operators in place; returns what undoes it, for who runs the program once more: parts may be of a vmap."""
    graph = program.graph_module.graph
    before = list(graph.nodes)
    if any(_writes(node.target) for node in before):
        return lambda: None
    replaced: list[tuple[Node, Spelled]] = []
    for node in before:
        if node.target in _SPELLINGS:
            with graph.inserting_before(node):
                spelled = _SPELLINGS[node.target](graph, node)
            if spelled is not None:
                replaced.append((node, (node.target, node.args, node.kwargs)))
                node.target, node.args, node.kwargs = spelled
    program.graph_module.recompile()

    def undo() -> None:
        for node, original in replaced:
            node.target, node.args, node.kwargs = original
        for node in [n for n in reversed(graph.nodes) if n not in known]:
            graph.erase_node(node)
        program.graph_module.recompile()

    known = set(before)
    return undo


def drop_notes(program: ExportedProgram) -> None:
    """Drop what torch notes beside conversions of dtypes and nobody reads."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
    program.graph_module.recompile()


def clamp_by_floats(program: ExportedProgram) -> None:
    """Write whole bounds of floats as floats.

    torch.onnx looks for one kind of number, and makes of a whole one beside a float a tensor that no clamp takes.
    """
    for node in program.graph_module.graph.nodes:
        if node.target is aten.clamp.default and _value(node).is_floating_point():
            node.args = tuple(float(bound) if isinstance(bound, int) else bound for bound in node.args)
            node.kwargs = {name: float(b) if isinstance(b, int) else b for name, b in node.kwargs.items()}
    program.graph_module.recompile()


def _writes(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _value(node: Any) -> Any:
    return node.meta["val"]


def _given(node: Node, *names: str) -> list[Any]:
    """Arguments behind the first by name, defaults of the schema included."""
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    places = {argument.name: (i, argument.default_value) for i, argument in enumerate(arguments)}
    found = []
    for name in names:
        place, default = places[name]
        found.append(node.args[place] if place < len(node.args) else node.kwargs.get(name, default))
    return found


def _conversion(graph: Graph, node: Node) -> Spelled:
    return aten._to_copy.default, node.args[:1], {"dtype": _value(node).dtype}


def _moved(graph: Graph, node: Node) -> Spelled:
    source, target = _given(node, "source", "destination")
    rank = _value(node.args[0]).dim()
    pairs = zip(*([v] if isinstance(v, int) else v for v in (target, source)), strict=True)
    order: dict[int, int] = {to % rank: axis % rank for to, axis in pairs}
    rest = iter(axis for axis in range(rank) if axis not in order.values())
    return aten.permute.default, (node.args[0], [order[i] if i in order else next(rest) for i in range(rank)]), {}


def _unflattened(graph: Graph, node: Node) -> Spelled:
    dim, sizes = _given(node, "dim", "sizes")
    dim %= _value(node.args[0]).dim()
    every = _sizes(graph, node.args[0])
    return _reshaped(node.args[0], [*every[:dim], *sizes, *every[dim + 1 :]])


def _flattened(graph: Graph, node: Node) -> Spelled | None:
    start, end = _given(node, "start_dim", "end_dim")
    rank = _value(node.args[0]).dim()
    if rank < 2 or start % rank == end % rank:
        return None
    every = _sizes(graph, node.args[0])
    start, end = start % rank, end % rank
    joined = reduce(lambda a, b: _product(graph, a, b), every[start : end + 1])
    return _reshaped(node.args[0], [*every[:start], joined, *every[end + 1 :]])


def _reshaped(value: Any, sizes: list[Any]) -> Spelled:
    """No view, which torch's passes could not run on every layout of memory."""
    return aten.reshape.default, (value, sizes), {}


def _chunked(graph: Graph, node: Node) -> Spelled | None:
    chunks, dim = _given(node, "chunks", "dim")
    size = _value(node.args[0]).shape[dim]
    return (aten.split.Tensor, (node.args[0], -(-size // chunks), dim), {}) if isinstance(size, int) and size else None


def _narrowed(graph: Graph, node: Node) -> Spelled | None:
    dim, start, length = _given(node, "dim", "start", "length")
    if not all(isinstance(n, int) for n in (start, length)) or start < 0:
        return None
    return aten.slice.Tensor, (node.args[0], dim, start, start + length), {}


def _subtracted(graph: Graph, node: Node) -> Spelled | None:
    """n - x as n + (-x), which rounds alike."""
    number, alpha = _given(node, "other", "alpha")
    value = _value(node.args[0])
    if alpha != 1 or not value.is_floating_point():
        return None
    negated = graph.call_function(aten.neg.default, node.args[:1])
    negated.meta["val"] = value
    return aten.add.Tensor, (negated, number), {}


def _transposed(graph: Graph, node: Node) -> Spelled:
    return aten.transpose.int, node.args, {}


def _sizes(graph: Graph, source: Any) -> list[Any]:
    """Sizes of ``source``: numbers, and nodes for those that are free, read off the inputs where these have them."""
    known = {
        size.node.expr: (node, axis)
        for node in graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor)
        for axis, size in enumerate(node.meta["val"].shape)
        if isinstance(size, torch.SymInt)
    }
    found: list[Any] = []
    for axis, size in enumerate(_value(source).shape):
        if isinstance(size, torch.SymInt):
            found.append(graph.call_function(aten.sym_size.int, known.get(size.node.expr, (source, axis))))
            found[-1].meta["val"] = size
        else:
            found.append(size)
    return found


def _product(graph: Graph, a: Any, b: Any) -> Any:
    if not isinstance(a, Node) and not isinstance(b, Node):
        return a * b
    made = graph.call_function(operator.mul, (a, b))
    made.meta["val"] = (_value(a) if isinstance(a, Node) else a) * (_value(b) if isinstance(b, Node) else b)
    return made


_SPELLINGS: dict[Any, Callable[[Graph, Node], Spelled | None]] = {
    **dict.fromkeys((aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten.to.other), _conversion),
    **dict.fromkeys((aten.movedim.int, aten.movedim.intlist), _moved),
    aten.unflatten.int: _unflattened,
    aten.flatten.using_ints: _flattened,
    aten.chunk.default: _chunked,
    aten.narrow.default: _narrowed,
    aten.rsub.Scalar: _subtracted,
    **dict.fromkeys((aten.swapaxes.default, aten.swapdims.default), _transposed),
}
