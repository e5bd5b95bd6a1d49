"""Unpacked rows end with the longest of them; a module that counts its own padding knows how long that is, the file's caller not.

``pad_packed_sequence(packed)`` without a ``total_length`` gives as many steps as the longest row has.  Where lengths come in as an
input, a file answers for all steps of its input, zeros behind each row.  Where they are computed of what comes in,
``(ids != 0).sum(1)``, a batch in which no row is full is as right an input as others, and all that follows in the module (a
maximum over time, the shape of the output) is of fewer steps.  So such places are marked while a module is traced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from rnncore.export.tracing.recorder import DOMAIN

_OP_TYPE = "LongestRow"


@dataclass(frozen=True)
class LongestRow:
    """Rows were unpacked: as many steps of ``axis`` are left as the largest of ``lengths``, the name of a value, says.

    read: inputs that these are computed from, all of which have that axis.
    """

    lengths: str
    axis: str
    read: tuple[str, ...]


def marked(y: Tensor, lengths: Tensor) -> Tensor:
    """``y`` [batch, time, ...] as it is, by a node that says that rows of ``lengths`` [batch] end here."""
    (same,) = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{_OP_TYPE}", [y, lengths], dtypes=[y.dtype], shapes=[tuple(y.shape)], version=1
    )
    return same


def take_marks(graph: ir.Graph) -> list[tuple[ir.Value, ir.Value]]:
    """(lengths, rows) of every mark in ``graph``, which has none afterwards."""
    found = []
    for node in list(graph):
        if (node.domain, node.op_type) == (DOMAIN, _OP_TYPE):
            rows, lengths = node.inputs
            assert rows is not None and lengths is not None
            node.outputs[0].replace_all_uses_with(rows, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            found.append((lengths, rows))
    return found


def longest_rows(marks: Iterable[tuple[ir.Value, ir.Value]]) -> tuple[LongestRow, ...]:
    """Those whose lengths are computed of values along the axis that they count along; all axes have their names."""
    found: dict[tuple[str, str], LongestRow] = {}
    for lengths, rows in marks:
        axis = None if rows.shape is None else rows.shape[1]
        nodes, read = behind(lengths)
        name = axis if isinstance(axis, int) or axis is None else axis.value
        plain = all(not node.domain and node.op_type not in ("If", "Loop", "Scan") for node in nodes)
        if isinstance(name, str) and read and plain and all(along(value, name) is not None for value in read):
            one = LongestRow(str(lengths.name), name, tuple(str(value.name) for value in read))
            found[one.lengths, one.axis] = one
    return tuple(found.values())


def along(value: ir.Value, axis: str) -> int | None:
    """The place of a named axis in the shape of ``value``, None if it has none."""
    names = [None if isinstance(dim, int) else dim.value for dim in value.shape or ()]
    return names.index(axis) if axis in names else None


def behind(value: ir.Value) -> tuple[Sequence[ir.Node], Sequence[ir.Value]]:
    """Nodes that ``value`` is computed by, in any order, and inputs of the graph that it is computed from; not those of sizes."""
    nodes: dict[ir.Node, None] = {}
    inputs: dict[ir.Value, None] = {}
    todo = [value]
    while todo:
        one = todo.pop()
        node = one.producer()
        if one.is_graph_input():
            inputs[one] = None
        elif node is not None and node not in nodes:
            nodes[node] = None
            todo += [] if node.op_type == "Shape" else [part for part in node.inputs if part is not None]
    return list(nodes), list(inputs)
