"""Parts of a graph between two changes of their axes, there and back, are computed as they lie before the first.

Each change costs onnxruntime a node at every call, and most of what stands between does not care.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.replace import put_in_place

Dims = list[int | str | None]
Write = Callable[[Builder, ir.Node, list[ir.Value | None]], list[ir.Value]]
"""Writes an operator of inputs as they lie, such as :meth:`Builder.again`."""


class Change(ABC):
    """One kind of change of axes; ``name`` is what nodes are named after that are computed without it."""

    name: str

    @abstractmethod
    def there(self, node: ir.Node) -> bool:
        """Whether ``node`` makes this change."""

    @abstractmethod
    def back(self, node: ir.Node) -> bool:
        """Whether ``node`` undoes it."""

    @abstractmethod
    def lying(self, dims: Dims) -> Dims:
        """The sizes, before the change, of what has ``dims`` behind it."""

    @abstractmethod
    def make(self, builder: Builder, value: ir.Value, rank: int) -> ir.Value:
        """``value``, as it lies, changed; it has ``rank`` axes then."""

    @abstractmethod
    def writer(self, node: ir.Node, own: list[ir.Value], others: list[ir.Value]) -> Write | None:
        """How ``node`` is written, of whose inputs ``own`` are taken as they lie; None if it cannot be."""


def drop_changes(graph: ir.Graph, change: Change) -> None:
    """Compute such parts of ``graph`` as they lie, in place, wherever fewer values are changed so."""
    _Parts(graph, change).drop()


class _Parts:
    """Values whose axes are changed, by the parts of the graph that they are in."""

    def __init__(self, graph: ir.Graph, change: Change) -> None:
        self._graph, self._change = graph, change
        self._part: dict[ir.Value, ir.Value] = {}
        self._writers: dict[ir.Node, Write] = {}
        self._sources: list[ir.Node] = []
        self._returns: list[ir.Node] = []

    def drop(self) -> None:
        for node in self._graph:
            self._look_at(node)
        worth = self._worth()
        if not any(worth.values()):
            return
        names = Builder(self._change.name, self._graph)
        lying = {node.outputs[0]: node.inputs[0] for node in self._sources}
        for node in list(self._graph):
            if node in self._writers and worth[self._of(node.outputs[0])]:
                builder = names.nested()
                inputs = [lying.get(value, value) if value is not None else None for value in node.inputs]
                for old, new in zip(node.outputs, self._writers[node](builder, node, inputs), strict=True):
                    new.type, new.shape = old.type, ir.Shape(self._change.lying(dims_of(old)))
                    lying[old] = new
                self._graph.insert_before(node, builder.nodes)
            elif node in self._returns and worth[self._of(node.inputs[0])]:  # type: ignore[arg-type]
                self._return(node.outputs[0], lying[node.inputs[0]], names.nested())  # type: ignore[index]
        self._change_for_others({old: new for old, new in lying.items() if new is not None and worth[self._of(old)]})

    def _return(self, old: ir.Value, new: ir.Value | None, builder: Builder) -> None:
        assert new is not None
        if old.is_graph_output() and (new.is_graph_input() or new.is_graph_output()):
            new = builder.op("Identity", new)
            self._graph.insert_before(old.producer(), builder.nodes)  # type: ignore[arg-type]
        put_in_place(old, new)

    def _look_at(self, node: ir.Node) -> None:
        given = [value for value in node.inputs if value is not None]
        changed = [value for value in given if value in self._part]
        if changed and self._change.back(node):
            self._returns.append(node)
            return
        if not changed and self._change.there(node):
            self._sources.append(node)
            self._part[node.outputs[0]] = node.outputs[0]
            return
        others = [value for value in given if value not in self._part]
        writer = self._change.writer(node, changed, others) if changed and not node.domain else None
        if writer is None:
            return
        self._writers[node] = writer
        for value in (*node.outputs, *changed):
            self._part.setdefault(value, value)
            self._part[self._of(value)] = self._of(node.outputs[0])

    def _of(self, value: ir.Value) -> ir.Value:
        """What stands for the part of the graph that ``value`` is in."""
        while self._part[value] is not value:
            value = self._part[value]
        return value

    def _worth(self) -> dict[ir.Value, bool]:
        """Of each part whether fewer values are changed if it is computed as it lies."""
        spared: dict[ir.Value, int] = defaultdict(int)
        for node in self._sources:
            spared[self._of(node.outputs[0])] += 1
        for node in self._returns:
            spared[self._of(node.inputs[0])] += 1  # type: ignore[arg-type]
        for value in self._part:
            others = [user for user, _ in value.uses() if user not in self._writers and user not in self._returns]
            if others or value.is_graph_output():
                spared[self._of(value)] -= 1
        return {part: count > 0 for part, count in spared.items()}

    def _change_for_others(self, lying: dict[ir.Value, ir.Value]) -> None:
        """Change what others read, and drop what nobody reads any more."""
        sources = {node.outputs[0] for node in self._sources}
        written = [node for node in self._graph if node in self._writers or node in self._returns]
        gone = [node for node in written if any(value in lying for value in (*node.inputs, *node.outputs))]
        names = Builder(f"{self._change.name}/changed", self._graph)
        for old, new in lying.items():
            if old in sources:
                continue
            users = [(user, place) for user, place in old.uses() if user not in gone]
            if not users and not old.is_graph_output():
                continue
            builder = names.nested()
            again = self._change.make(builder, new, len(dims_of(old)))
            self._graph.insert_after(old.producer(), builder.nodes)  # type: ignore[arg-type]
            put_in_place(old, again)
        for node in reversed(gone):
            if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                self._graph.remove(node, safe=True)
        for node in self._sources:
            if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                self._graph.remove(node, safe=True)
