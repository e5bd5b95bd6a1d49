"""A batch in which no row is full is cut to its longest row, where the module itself counts how long its rows are.

See :mod:`rnncore.export.tracing.longest_rows`.  What PyTorch unpacks has as many steps as the longest row, and so has all that
follows.  So the rows are cut where they are packed, and the inputs at the beginning, for whatever else reads them; the lengths,
and what is packed, are computed of the inputs as they came in.  Where a layer stands before the packing it is not computed
twice: what is packed is computed of the inputs that were cut.  Whether that is right, verification sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.tracing.longest_rows import LongestRow, along, are_plain, nodes_behind
from rnncore.export.tracing.states import depends


def cut_to_longest(graph: ir.Graph, longest: Sequence[LongestRow]) -> None:
    """Cut the rows of ``graph`` along the axes of ``longest``."""
    values = {str(value.name): value for value in (*graph.inputs, *(out for node in graph for out in node.outputs))}
    for axis in dict.fromkeys(one.axis for one in longest):
        own = [one for one in longest if one.axis == axis]
        packed = dict.fromkeys(values[name] for one in own for name in one.packed if name in values)
        _cut(graph, axis, [values[one.lengths] for one in own], [x for x in packed if are_plain(nodes_behind(x))])


def forget_sizes(graph: ir.Graph, longest: Sequence[LongestRow]) -> None:
    """Leave the names of the axes of ``longest`` to inputs: axes of one name are of one size, by what onnxruntime thinks."""
    axes = {one.axis for one in longest}
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for value in node.outputs:
            if axes.intersection(dims := dims_of(value)):
                value.shape = ir.Shape([None if dim in axes else dim for dim in dims])


def _cut(graph: ir.Graph, axis: str, lengths: Sequence[ir.Value], packed: Sequence[ir.Value]) -> None:
    builder = Builder(f"longest {axis}", graph)
    before = {node for value in (*lengths, *packed) for node in nodes_behind(value)}
    as_they_came: dict[ir.Value, ir.Value] = {}
    for node in [node for node in graph if node in before]:
        given = [None if part is None else as_they_came.get(part, part) for part in node.inputs]
        for old, new in zip(node.outputs, builder.again(node, given), strict=True):
            new.type, new.shape = old.type, old.shape
            as_they_came[old] = new
    ends = [builder.op("ReduceMax", as_they_came.get(value, value), keepdims=0) for value in lengths]
    most = ends[0] if len(ends) == 1 else builder.op("Max", *ends)
    end = builder.op("Reshape", most, builder.constant([1]))
    uncut = set(builder.nodes)
    for value in dict.fromkeys([*packed, *graph.inputs]):
        place = along(value, axis)
        if place is not None:
            whole = as_they_came.get(value, value)
            part = builder.op("Slice", whole, builder.constant([0]), end, builder.constant([place]))
            part.type, part.shape = value.type, value.shape
            for user, number in list(value.uses()):
                if user not in uncut and user is not part.producer():
                    user.replace_input_with(number, part)
    for old, new in as_they_came.items():
        if old.shape is not None and along(old, axis) is None and depends(old):  # no size
            name, out = old.name, old.is_graph_output()
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            if out:
                old.name, new.name = f"{name}/cut", name
    graph.insert_before(next(iter(graph)), builder.nodes)
