"""Gates with the same activation that are one product and one activation, with a ``Split`` behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from rnncore.export.graph.column_ranges import ELEMENTWISE, ColumnRange, shifted, split_sizes

_WORTH_JOINING = 3  # two are no faster as one product and a Split


@dataclass
class MergedGates:
    """Nodes of one kind, each behind an output of one ``Split``, which can be one node behind columns of ``source``.

    nodes: in the order of the graph, with the columns of each.
    """

    source: ir.Value
    nodes: dict[ir.Node, tuple[int, int]]

    @property
    def first(self) -> ir.Node:
        """The one that the graph comes to first."""
        return next(iter(self.nodes))

    @property
    def part(self) -> ColumnRange:
        """What their inputs are of ``source``."""
        return shifted(sorted(self.nodes.values()), 0)

    @property
    def ordered(self) -> list[ir.Node]:
        """The nodes in the order of their columns."""
        return sorted(self.nodes, key=self.nodes.__getitem__)


def find_merged_gates(nodes: Sequence[ir.Node]) -> dict[ir.Node, MergedGates]:
    """Gates among ``nodes`` that are worth merging, under each of their nodes; whether ``source`` can be cut is not asked."""
    own = set(nodes)
    alike: dict[tuple[object, ...], dict[ir.Node, tuple[int, int]]] = {}
    for node in nodes:
        value = node.inputs[0] if len(node.inputs) == 1 else None
        above = value.producer() if value is not None else None
        sizes = split_sizes(above) if above in own and above is not None else None
        if value is None or above is None or sizes is None or len(value.uses()) > 1:
            continue
        if node.op_type in ELEMENTWISE and not node.domain:
            at = above.outputs.index(value)
            kind = (above.inputs[0], node.op_type, *sorted((a.name, a.value) for a in node.attributes.values()))
            alike.setdefault(kind, {})[node] = (sum(sizes[:at]), sum(sizes[: at + 1]))
    merged_gates = {}
    for (source, *_), members in alike.items():
        assert isinstance(source, ir.Value)
        if len(members) >= _WORTH_JOINING:
            merged_gates.update(dict.fromkeys(members, MergedGates(source, members)))
    return merged_gates
