"""A small writer of ONNX nodes whose values are all named by the layer's path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx_ir as ir


class Builder:
    """Collects nodes for one graph; constants become initializers of the main graph, shared by value.

    Two graphs exported apart reuse value names and clash once one is nested in the other, so every name here starts
    with ``prefix``, the path of a layer.
    """

    def __init__(self, prefix: str, main: ir.Graph, counter: count[int] | None = None) -> None:
        self.prefix = prefix
        self.main = main
        self.nodes: list[ir.Node] = []
        self._counter = counter or count()

    def nested(self) -> Builder:
        """A builder for a subgraph: same prefix, same numbering, same place for constants."""
        return Builder(self.prefix, self.main, self._counter)

    def name(self, what: str) -> str:
        """A fresh name, such as ``encoder.layers.0/Gemm_3``."""
        return f"{self.prefix}/{what}_{next(self._counter)}"

    def ops(self, op_type: str, inputs: Sequence[ir.Value | None], outputs: int, **attributes: Any) -> list[ir.Value]:
        """Append a node with several outputs."""
        return self.append(op_type, inputs, ir.convenience.convert_attributes(attributes), outputs)

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append a node with one output."""
        return self.ops(op_type, inputs, 1, **attributes)[0]

    def append(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Iterable[ir.Attr],
        outputs: int,
        domain: str = "",
    ) -> list[ir.Value]:
        """Append a node with ready attributes."""
        node = ir.Node(domain, op_type, inputs, list(attributes), num_outputs=outputs, name=self.name(op_type))
        for i, value in enumerate(node.outputs):
            value.name = node.name if outputs == 1 else f"{node.name}.{i}"
        self.nodes.append(node)
        return list(node.outputs)

    def again(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> list[ir.Value]:
        """Append ``node`` of other inputs."""
        return self.append(node.op_type, inputs, node.attributes.values(), len(node.outputs), node.domain)

    def constant(self, value: Any, dtype: Any = np.int64) -> ir.Value:
        """An initializer of the main graph that holds ``value``; equal constants are one."""
        array = np.asarray(value, dtype)
        name = f"const/{array.dtype}/" + "x".join(map(str, array.shape)) + "/" + "_".join(map(str, array.ravel()))
        if name not in self.main.initializers:
            self.main.register_initializer(_value(name, ir.tensor(array, name=name)))
        return self.main.initializers[name]

    def input(self, what: str, dtype: ir.DataType, shape: Sequence[int | str | None]) -> ir.Value:
        """A typed input for a subgraph."""
        return ir.Value(name=self.name(what), type=ir.TensorType(dtype), shape=ir.Shape(shape))

    def subgraph(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], what: str) -> ir.Graph:
        """The collected nodes as a graph for a Loop, Scan or If."""
        return ir.Graph(inputs, outputs, nodes=self.nodes, name=self.name(what))


def _value(name: str, tensor: ir.TensorProtocol) -> ir.Value:
    return ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
    )


def initializer(main: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Register a weight under ``name`` in the main graph, or return the one that is there."""
    if name not in main.initializers:
        main.register_initializer(_value(name, tensor))
    return main.initializers[name]
