"""Values of other axes, same numbers: chains of such are one ``Reshape``, and what stands between two is computed without.

onnxruntime copies the numbers at every ``Reshape``, ``Squeeze`` and ``Unsqueeze``, and at a ``Transpose`` of axes of 1, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.column_ranges import ARITHMETIC
from rnncore.export.graph.dims import are_plain, copying, dims_of, ends_of
from rnncore.export.graph.lying import Change, Dims, Write
from rnncore.export.graph.replace import put_in_place

VIEWS = ("Reshape", "Squeeze", "Unsqueeze")
"""Operators that give the same numbers in the same order whatever they are asked for."""


def shorten_views(graph: ir.Graph) -> None:
    """Let each view be one of the first value that it is a view of, or that value itself; in place, at any depth."""
    builder = Builder("views", graph)
    for node in list(ir.traversal.RecursiveGraphIterator(graph)):
        if node.graph is not None and _is_view(node):
            _shorten(node, builder.nested())


def _is_view(node: ir.Node) -> bool:
    if node.domain or not node.inputs or node.inputs[0] is None:
        return False
    return node.op_type in VIEWS or (node.op_type == "Transpose" and _turns_ones(node))


def _turns_ones(node: ir.Node) -> bool:
    """Whether axes that are not of size 1 keep their order."""
    dims = dims_of(node.inputs[0])
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else []
    kept = [axis for axis in perm if dims[axis : axis + 1] != [1]]
    return len(dims) == len(perm) > 0 and kept == sorted(kept)


def _shorten(node: ir.Node, builder: Builder) -> None:
    for value in reversed(list(_before(node))):
        shorter = _made_of(value, node, builder)
        if shorter is not None:
            assert isinstance(node.graph, ir.Graph)
            node.graph.insert_before(node, builder.nodes)
            put_in_place(node.outputs[0], shorter)
            _remove(node)
            return


def _made_of(value: ir.Value, node: ir.Node, builder: Builder) -> ir.Value | None:
    """What ``node`` gives, made of ``value`` by one view or none; None if it cannot be, or is made so already."""
    made = node.outputs[0]
    if _is_same(made, value):
        return None if made.is_graph_output() else value
    already = value is node.inputs[0] and node.op_type != "Transpose"
    target = None if already else _target(node, value, builder)
    if target is None:
        return None
    attributes = {"allowzero": 1} if target is node.inputs[-1] and _allows_zero(node) else {}
    return builder.op("Reshape", value, target, **attributes)


def _remove(node: ir.Node | None) -> None:
    """Take out a view that nobody reads, and what only it read."""
    if node is not None and _is_view(node) and not (node.outputs[0].uses() or node.outputs[0].is_graph_output()):
        before = node.inputs[0]
        assert isinstance(node.graph, ir.Graph)
        node.graph.remove(node, safe=True)
        _remove(before.producer() if before is not None else None)


def _before(node: ir.Node) -> Iterator[ir.Value]:
    """What ``node`` is a view of, the nearest first."""
    value = node.inputs[0]
    while value is not None:
        yield value
        maker = value.producer()
        value = maker.inputs[0] if maker is not None and _is_view(maker) else None


def _allows_zero(node: ir.Node) -> bool:
    return node.attributes.get_int("allowzero", 0) == 1


def _is_same(made: ir.Value, value: ir.Value) -> bool:
    dims = dims_of(made)
    return dims == dims_of(value) and len(dims) > 0 and are_plain(dims)


def _target(node: ir.Node, value: ir.Value, builder: Builder) -> ir.Value | None:
    """The sizes that a ``Reshape`` of ``value`` needs to give what ``node`` gives; None if it cannot."""
    if node.op_type == "Reshape":
        asked = node.inputs[1]
        sizes = None if asked is None or asked.const_value is None else asked.const_value.numpy().ravel().tolist()
        if asked is not None and sizes is not None:
            near, far = dims_of(node.inputs[0]), dims_of(value)
            copied = [] if _allows_zero(node) else [k for k, size in enumerate(sizes) if size == 0]
            alike = all(near[k : k + 1] == far[k : k + 1] != [None] for k in copied)
            return asked if alike and (not copied or (near and far)) else None
    wanted = _sizes(dims_of(value), dims_of(node.outputs[0]))
    return builder.constant(wanted) if wanted else None


def _sizes(before: Dims, after: Dims) -> list[int]:
    """What a ``Reshape`` is asked for, 0 where it copies a size; nothing if sizes that nobody knows are not at their places."""
    if not before or not after or not are_plain([*before, *after]) or 0 in after:
        return []
    return copying(before, after)


class Views(Change):
    """What has sizes ``before`` as ``after``."""

    name = "viewed"

    def __init__(self, before: Dims, after: Dims) -> None:
        self._before, self._after = before, after

    @classmethod
    def of(cls, graph: ir.Graph) -> list[Views]:
        """All that are made and undone in ``graph``."""
        pairs = [ends_of(node) for node in graph if _is_view(node)]
        there = [pair for pair in pairs if pair[0] != pair[1] and _sizes(*pair) and _sizes(pair[1], pair[0])]
        distinct: list[tuple[Dims, Dims]] = []
        for before, after in there:
            if (after, before) in there and (before, after) not in distinct:
                distinct.append((before, after))
        return [cls(*pair) for pair in distinct]

    def there(self, node: ir.Node) -> bool:
        """Any view of these sizes."""
        return _is_view(node) and ends_of(node) == (self._before, self._after)

    def back(self, node: ir.Node) -> bool:
        """The view of the former sizes."""
        return _is_view(node) and ends_of(node) == (self._after, self._before)

    def lying(self, dims: Dims) -> Dims:
        """The former sizes."""
        return self._before

    def make(self, builder: Builder, value: ir.Value, rank: int) -> ir.Value:
        """By a ``Reshape`` that copies the sizes that stay where they are."""
        return builder.op("Reshape", value, builder.constant(_sizes(self._before, self._after)))

    def writer(self, node: ir.Node, own: list[ir.Value], others: list[ir.Value]) -> Write | None:
        """Arithmetic of such values with each other and with single numbers."""
        alike = all(dims_of(value) == self._after for value in (*own, *node.outputs))
        numbers = all(value.shape is not None and len(value.shape) == 0 for value in others)
        return Builder.again if node.op_type in ARITHMETIC and alike and numbers else None
