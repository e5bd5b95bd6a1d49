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

from rnncore.export.graph.dims import dims_of
from rnncore.export.tracing.recorder import DOMAIN
from rnncore.export.tracing.states import above

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
        name, read = (
            _steps_axis(mark.rows),
            [v for v in above([mark.lengths], through_sizes=False) if v.is_graph_input()],
        )
        if mark.packed or name is None or not read or not are_plain(nodes_behind(mark.lengths)):
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
    dims = dims_of(value)
    return dims.index(axis) if axis in dims else None


def nodes_behind(value: ir.Value) -> set[ir.Node]:
    """Nodes that ``value`` is computed by; of sizes those that ask for them."""
    return {node for part in above([value], through_sizes=False) if (node := part.producer()) is not None}


def _marked(op_type: str, value: Tensor, lengths: Tensor) -> Tensor:
    (same,) = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{op_type}", [value, lengths], dtypes=[value.dtype], shapes=[tuple(value.shape)], version=1
    )
    return same


def _steps_axis(rows: ir.Value) -> str | None:
    axis = [*dims_of(rows), None, None][1]
    return axis if isinstance(axis, str) else None
