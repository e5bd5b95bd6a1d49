"""A batch in which no row is full is cut to its longest row, where the module itself counts how long its rows are.

See :mod:`rnncore.export.tracing.longest_rows`.  What PyTorch unpacks has as many steps as the longest row, and so has all that
follows.  What stands before it is mostly computed step by step, so that the inputs themselves can be cut, at the beginning, by
lengths that are computed of them as they came in.  Whether that is so, verification sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.tracing.longest_rows import LongestRow, along, behind


def cut_to_longest(graph: ir.Graph, longest: Sequence[LongestRow]) -> None:
    """Cut the inputs of ``graph`` along the axes of ``longest``."""
    values = {str(value.name): value for node in graph for value in node.outputs}
    for axis in dict.fromkeys(one.axis for one in longest):
        _cut(graph, axis, [values[one.lengths] for one in longest if one.axis == axis])


def forget_sizes(graph: ir.Graph, longest: Sequence[LongestRow]) -> None:
    """Axes of ``longest`` have their names at inputs only: of two values with equal names onnxruntime thinks that they are as large."""
    axes = {one.axis for one in longest}
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for value in node.outputs:
            if value.shape is not None and any(along(value, axis) is not None for axis in axes):
                value.shape = ir.Shape([None if _name(dim) in axes else dim for dim in value.shape])


def _cut(graph: ir.Graph, axis: str, lengths: Sequence[ir.Value]) -> None:
    builder = Builder(f"longest {axis}", graph)
    before = {node for value in lengths for node in behind(value)[0]}
    as_they_came: dict[ir.Value, ir.Value] = {}
    for node in [node for node in graph if node in before]:
        given = [None if part is None else as_they_came.get(part, part) for part in node.inputs]
        for old, new in zip(node.outputs, builder.again(node, given), strict=True):
            new.type, new.shape = old.type, old.shape
            as_they_came[old] = new
    ends = [builder.op("ReduceMax", as_they_came[value], keepdims=0) for value in lengths]
    most = ends[0] if len(ends) == 1 else builder.op("Max", *ends)
    end = builder.op("Reshape", most, builder.constant([1]))
    uncut = set(builder.nodes)
    for value in graph.inputs:
        place = along(value, axis)
        if place is not None:
            part = builder.op("Slice", value, builder.constant([0]), end, builder.constant([place]))
            part.type, part.shape = value.type, value.shape
            for user, number in list(value.uses()):
                if user not in uncut and user is not part.producer():
                    user.replace_input_with(number, part)
    for old, new in as_they_came.items():
        if old.shape is not None and along(old, axis) is None and behind(old)[1]:  # no size
            name, out = old.name, old.is_graph_output()
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            if out:
                old.name, new.name = f"{name}/cut", name
    graph.insert_before(next(iter(graph)), builder.nodes)


def _name(dim: int | ir.SymbolicDim) -> str | None:
    return None if isinstance(dim, int) else dim.value
