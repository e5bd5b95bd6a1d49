"""Write a finished graph into another one: from given values, under other names, what never changes outside of a loop."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder, initializer
from rnncore.runtime.errors import ExportError


def inline(
    graph: ir.Graph,
    wanted: Sequence[str],
    arguments: Mapping[str, ir.Value],
    builder: Builder,
    *,
    varying: Collection[str] | None = None,
    outside: Builder | None = None,
) -> list[ir.Value]:
    """Copies of the nodes of ``graph`` that its outputs ``wanted`` need, appended to ``builder``.

    Weights become initializers of the main graph, one copy however often they are inlined.

    Args:
        graph: stays as it is.
        wanted: names of its outputs.
        arguments: the value that stands for each input, by name; inputs with a default may be left out.
        builder: its prefix is put before every name.
        varying: the inputs that change from step to step, if ``builder`` writes the body of a loop.
        outside: where nodes go that depend on none of these: they run once, before the loop.

    Returns:
        The values of ``wanted``.
    """
    outputs = [next(value for value in graph.outputs if value.name == name) for name in wanted]
    mapping = {value: arguments[str(value.name)] for value in graph.inputs if value.name in arguments}
    copier = _Copier(builder, mapping)
    changing = {value for value in graph.inputs if varying is None or value.name in varying}
    for node in _needed(graph, outputs):
        copy = copier.node(node)
        if outside is None or changing.intersection(_uses(node)):
            changing.update(node.outputs)
            builder.nodes.append(copy)
        else:
            outside.nodes.append(copy)
    return [copier.value(value) for value in outputs]


def _needed(graph: ir.Graph, outputs: Sequence[ir.Value]) -> list[ir.Node]:
    needed = set(outputs)
    nodes = []
    for node in reversed(list(graph)):
        if needed.intersection(node.outputs):
            needed.update(_uses(node))
            nodes.append(node)
    return nodes[::-1]


def _uses(node: ir.Node) -> Iterator[ir.Value]:
    """Every value that ``node`` reads, those that its subgraphs read included."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if isinstance(attribute.value, ir.Graph):
            for inner in attribute.value:
                yield from _uses(inner)
            yield from attribute.value.outputs


class _Copier:
    def __init__(self, builder: Builder, mapping: dict[ir.Value, ir.Value]) -> None:
        self._builder = builder
        self._mapping = mapping

    def value(self, value: ir.Value) -> ir.Value:
        if value not in self._mapping:
            if value.const_value is None:
                raise ExportError(f"nothing was given for the value '{value.name}' of the graph to be inlined")
            self._mapping[value] = self._weight(str(value.name), value.const_value)
        return self._mapping[value]

    def node(self, node: ir.Node) -> ir.Node:
        inputs = [None if value is None else self.value(value) for value in node.inputs]
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            [self._attribute(attribute) for attribute in node.attributes.values()],
            num_outputs=len(node.outputs),
            name=self._name(node.name),
        )
        # Types only: a free axis has one name in a graph, but not the same size in two copies of it, and onnxruntime
        # gives one buffer to values whose axes have equal names.
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.type = self._name(old.name), old.type
            self._mapping[old] = new
        return copy

    def _attribute(self, attribute: ir.Attr) -> ir.Attr:
        if not isinstance(attribute.value, ir.Graph):
            return attribute
        inner = attribute.value
        inputs = []
        for value in inner.inputs:
            inputs.append(ir.Value(name=self._name(value.name), type=value.type, shape=value.shape))
            self._mapping[value] = inputs[-1]
        nodes = [self.node(node) for node in inner]
        outputs = [self.value(value) for value in inner.outputs]
        copy = ir.Graph(inputs, outputs, nodes=nodes, name=self._name(inner.name))
        return ir.Attr(attribute.name, ir.AttributeType.GRAPH, copy)

    def _name(self, name: str | None) -> str:
        return f"{self._builder.prefix}/{name}" if name else self._builder.name("value")

    def _weight(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        taken = self._builder.main.initializers.get(name)
        if taken is not None and not np.array_equal(taken.const_value.numpy(), tensor.numpy()):  # type: ignore[union-attr]
            name = self._name(name)
        return initializer(self._builder.main, name, tensor)
