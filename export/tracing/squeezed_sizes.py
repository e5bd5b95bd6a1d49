"""``squeeze`` of an axis whose size torch has settled as 1, where its expression has not become the number 1.

A window over the whole of a sequence, for one: (steps - 16) // 16 + 1 is 1 from 16 steps to 31, and torch goes on with the
axis gone; ONNX is handed the expression, so the axis would stay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

aten = torch.ops.aten
_SQUEEZES = (aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)


def drop_settled_axes(program: ExportedProgram) -> None:
    """Write each such ``squeeze`` of ``program`` as the one entry of the axes that went."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target in _SQUEEZES and (gone := _settled(node)):
            source: Any = node.args[0]
            with graph.inserting_before(node):
                for axis in sorted(gone, reverse=True):
                    value = source.meta["val"].select(axis, 0)
                    source = graph.call_function(aten.select.int, (source, axis, 0))
                    source.meta = {**node.meta, "val": value}
            node.replace_all_uses_with(source)
            graph.erase_node(node)
    program.graph_module.recompile()


def _settled(node: Node) -> list[int]:
    """The axes that went, if one of them has no number for its size; empty where what is left does not tell them."""
    source: Any = node.args[0]
    named: Any = node.args[1] if len(node.args) > 1 else None
    before, after = source.meta["val"].shape, node.meta["val"].shape
    axes = (
        range(len(before))
        if named is None
        else [a % len(before) for a in ([named] if isinstance(named, int) else named)]
    )
    gone = [axis for axis in axes if not isinstance(before[axis], int) or before[axis] == 1]
    expressions = [axis for axis in gone if not isinstance(before[axis], int)]
    return gone if expressions and len(gone) == len(before) - len(after) else []
