"""One copy of weights in a file that holds a fused operator beside the loop that computes the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder

GATES = {"LSTM": 4, "GRU": 3}
_WEIGHTS = (1, 2)
"""Places of W and R among the inputs of a fused operator."""


def share_weights(model: ir.Model) -> None:
    """Make W and R of fused operators of the loops' weights, wherever these hold the same numbers.

    A loop multiplies with [gates * hidden size, input size], or that turned round; a fused operator takes [1, gates * hidden
    size, input size] in an order of its own.  Some nodes of constants make one of the other; onnxruntime computes them once, as
    it loads the file: the file holds the numbers once, a session as many as before.
    """
    nodes = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if node.op_type in GATES]
    for node in nodes:
        for place in _WEIGHTS:
            weight = node.inputs[place]
            made = None if weight is None else _made_of(model.graph, weight, node)
            if weight is not None and made is not None:
                node.replace_input_with(place, made)
                if not weight.uses():
                    del model.graph.initializers[str(weight.name)]


def _made_of(graph: ir.Graph, weight: ir.Value, node: ir.Node) -> ir.Value | None:
    """A value for ``node`` equal to ``weight``, made of another initializer of ``graph``; None if none holds its numbers."""
    gates = GATES[node.op_type]
    if weight.const_value is None or str(weight.name) not in graph.initializers:
        return None
    wanted = weight.const_value.numpy()[0]
    for other in graph.initializers.values():
        if other is weight or other.const_value is None:
            continue
        shape = tuple(other.const_value.shape.numpy())
        for turned in (False, True):
            if shape == (wanted.T if turned else wanted).shape:
                held = other.const_value.numpy()
                order = _order(np.split(wanted, gates), np.split(held.T if turned else held, gates))
                if order is not None:
                    return _reordered(Builder(str(weight.name), graph), node, other, order, turned=turned)
    return None


def _order(wanted: list[np.ndarray], held: list[np.ndarray]) -> list[int] | None:
    """Where each of the wanted gates stands among those that are held."""
    found = [next((j for j, one in enumerate(held) if np.array_equal(gate, one)), None) for gate in wanted]
    return None if None in found else [place for place in found if place is not None]


def _reordered(builder: Builder, node: ir.Node, held: ir.Value, order: list[int], *, turned: bool) -> ir.Value:
    """``held`` as ``node`` wants it, written right before it: onnxruntime packs what is constant in the graph of its operator."""
    parts = builder.ops("Split", [held], len(order), axis=int(turned), num_outputs=len(order))
    joined = builder.op("Concat", *(parts[place] for place in order), axis=int(turned))
    if turned:
        joined = builder.op("Transpose", joined, perm=[1, 0])
    made = builder.op("Unsqueeze", joined, builder.constant([0]))
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, builder.nodes)
    return made
