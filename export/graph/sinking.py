"""What only one branch of an ``If`` reads is put together there: the other need not pay for it."""

from __future__ import annotations

import onnx_ir as ir

_LAYS = ("Concat", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def sink_into_branches(graph: ir.Graph) -> None:
    """Move such nodes of ``graph`` that only lay values otherwise into the branches, in place, and on into theirs."""
    inside: dict[ir.Node, ir.Graph] = {}  # each node of a branch, at any depth, and that branch
    branches = [branch for node in graph if node.op_type == "If" for branch in _graphs(node)]
    for branch in branches:
        inside.update(dict.fromkeys(ir.traversal.RecursiveGraphIterator(branch), branch))
    for node in reversed(list(graph)):
        if node.op_type not in _LAYS or node.domain or not _is_computed(node):
            continue
        users = [user for value in node.outputs for user, _ in value.uses()]
        read_in = {inside.get(user) for user in users}
        only = read_in.pop() if len(read_in) == 1 else None
        if only is not None and not node.outputs[0].is_graph_output():
            graph.remove(node)
            only.insert_before(only[0], node)
            inside[node] = only
    for branch in branches:
        sink_into_branches(branch)


def _is_computed(node: ir.Node) -> bool:
    """Whether it depends on more than weights: what does not is computed once, and best where all can see it."""
    return any(value is not None and value.const_value is None for value in node.inputs[:1])


def _graphs(node: ir.Node) -> list[ir.Graph]:
    return [own.as_graph() for own in node.attributes.values() if own.type == ir.AttributeType.GRAPH]
