"""Take a shortcut out of a graph: the branch for a special case, where the other branch is as fast."""

from __future__ import annotations

import onnx_ir as ir

ONE_ROW = "one_row"
"""Name of the branch for batches of one row, see :func:`rnncore.export.lowering.forms.write_recurrence`.

It reads its weights as they are, which suits float32 only: an integer product with weights that onnxruntime has not packed
in advance takes 4 times as long (512 units, one row).
"""


def drop_shortcuts(graph: ir.Graph, name: str = ONE_ROW) -> None:
    """Replace each ``If`` whose first branch is called ``name`` by its else branch, in place and at any depth.

    Every ``If`` that the exporter writes has a shortcut for a special case as its first branch, and what is right in all
    cases as its else branch.
    """
    for node in list(ir.traversal.RecursiveGraphIterator(graph)):
        if node.op_type == "If" and name in str(_branch(node, "then_branch").name).rpartition("/")[2]:
            _inline(node)


def put_in_place(old: ir.Value, new: ir.Value) -> None:
    """Let ``new`` be used wherever ``old`` is, with its type, shape and, if it is an output of a graph, its name."""
    new.shape, new.type = old.shape, old.type
    if old.is_graph_output():
        new.name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _branch(node: ir.Node, name: str) -> ir.Graph:
    return node.attributes[name].as_graph()


def _inline(branch: ir.Node) -> None:
    graph, inner = branch.graph, _branch(branch, "else_branch")
    assert isinstance(graph, ir.Graph)
    results, nodes = list(inner.outputs), list(inner)
    inner.outputs.clear()
    inner.remove(nodes)
    graph.insert_before(branch, nodes)
    for old, new in zip(branch.outputs, results, strict=True):
        put_in_place(old, new)
    # What the dropped branch used would count as used for ever.
    for node in ir.traversal.RecursiveGraphIterator(_branch(branch, "then_branch")):
        for i in range(len(node.inputs)):
            node.replace_input_with(i, None)
    graph.remove(branch, safe=True)
