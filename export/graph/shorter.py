"""All that makes a graph shorter, in the order in which one makes way for the next."""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.graph.lying import drop_changes
from rnncore.export.graph.simplify import (
    choose_by_size,
    copy_sizes,
    drop_unread_results,
    multiply_unfolded,
    multiply_unreshaped,
)
from rnncore.export.graph.sinking import sink_into_branches
from rnncore.export.graph.turns import Turns
from rnncore.export.graph.unit_axes import UnitAxes
from rnncore.export.graph.views import Views, shorten_views


def shorten_traced(graph: ir.Graph) -> None:
    """A graph as torch's exporter gives it, with placeholders where loops will be; in place."""
    drop_unread_results(graph)
    multiply_unfolded(graph)
    shorten_views(graph)
    drop_changes(graph, Turns())
    shorten_views(graph)
    for change in (*Views.of(graph), UnitAxes()):
        drop_changes(graph, change)
    shorten_views(graph)
    copy_sizes(graph)
    multiply_unreshaped(graph)
    choose_by_size(graph)


def shorten_with_loops(graph: ir.Graph) -> None:
    """The same graph with its loops and branches; in place."""
    shorten_views(graph)
    sink_into_branches(graph)
