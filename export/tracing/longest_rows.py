"""Where a module unpacks rows whose lengths it computes: what follows has as many steps as the longest row.

``pad_packed_sequence(packed)`` without a ``total_length`` gives no more.  Where lengths come in as an input, a file answers
for all steps of its input, zeros behind each row.  Where they are computed of what comes in, ``(ids != 0).sum(1)``, or are an
input like others, a batch in which no row is full is as right an input as others, and all that follows in the module (a maximum
over time, the shape of the output) is of fewer steps.  So such places are marked while a module is traced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from rnncore.export.tracing.recorder import DOMAIN

_PACKED, _UNPACKED = "PackedRows", "LongestRow"


@dataclass(frozen=True)
class LongestRow:
    """Rows were unpacked: as many steps of ``axis`` are left as the largest of ``lengths``, the name of a value, says.

    read: inputs that these are computed from.  packed: names of what was packed before.
    """

    lengths: str
    axis: str
    read: tuple[str, ...]
    packed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """``rows`` [batch, time, ...] were packed by ``lengths`` [batch], or unpacked."""

    lengths: ir.Value
    rows: ir.Value
    packed: bool


def mark_packed(x: Tensor, lengths: Tensor) -> Tensor:
    """``x`` [batch, time, ...] as it is, by a node that says that it is packed by ``lengths`` [batch]."""
    return _marked(_PACKED, x, lengths)


def mark_unpacked(y: Tensor, lengths: Tensor) -> Tensor:
    """``y`` [batch, time, ...] as it is, by a node that says that rows of ``lengths`` [batch] end here."""
    return _marked(_UNPACKED, y, lengths)


def take_marks(graph: ir.Graph) -> list[Mark]:
    """All marks in ``graph``, which has none afterwards."""
    found = []
    for node in list(graph):
        if node.domain == DOMAIN and node.op_type in (_PACKED, _UNPACKED):
            rows, lengths = node.inputs
            assert rows is not None and lengths is not None
            node.outputs[0].replace_all_uses_with(rows, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            found.append(Mark(lengths, rows, node.op_type == _PACKED))
    return found


def longest_rows(marks: Sequence[Mark], counts: Mapping[str, str]) -> tuple[LongestRow, ...]:
    """Those whose lengths are computed of values along the axis that they count along, or of ``counts`` along it.

    All axes have their names.  counts: inputs that say how many entries each row has, each with the name of the axis.
    """
    found: dict[tuple[str, str], LongestRow] = {}
    for mark in marks:
        name, (nodes, read) = _steps_axis(mark.rows), behind(mark.lengths)
        if mark.packed or name is None or not read or not are_plain(nodes):
            continue
        if all(along(value, name) is not None or counts.get(str(value.name)) == name for value in read):
            packed = [str(one.rows.name) for one in marks if one.packed and _steps_axis(one.rows) == name]
            one = LongestRow(str(mark.lengths.name), name, tuple(str(value.name) for value in read), tuple(packed))
            found[one.lengths, one.axis] = one
    return tuple(found.values())


def are_plain(nodes: Iterable[ir.Node]) -> bool:
    """Whether all are operators of ONNX, none of which has a graph of its own."""
    return all(not node.domain and node.op_type not in ("If", "Loop", "Scan") for node in nodes)


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


def _marked(op_type: str, value: Tensor, lengths: Tensor) -> Tensor:
    (same,) = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{op_type}", [value, lengths], dtypes=[value.dtype], shapes=[tuple(value.shape)], version=1
    )
    return same


def _steps_axis(rows: ir.Value) -> str | None:
    axis = None if rows.shape is None else rows.shape[1]
    return None if axis is None or isinstance(axis, int) else axis.value
