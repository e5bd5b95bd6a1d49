"""What is computed with time first, between a ``Transpose`` there and one back, is computed as it lies.

A module's own step is traced for all steps at once with time first; most of what stands there does not care which of the two
first axes is which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.column_ranges import ARITHMETIC
from rnncore.export.graph.dims import are_plain, dims_of
from rnncore.export.graph.replace import put_in_place

_REDUCED = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceSumSquare")
_BY_AXES = (*_REDUCED, "Squeeze", "Unsqueeze")

Write = Callable[[Builder, list[ir.Value | None]], list[ir.Value]]
"""Writes an operator of inputs as they lie."""


def drop_turns(graph: ir.Graph) -> None:
    """Compute such parts of ``graph`` as they lie, in place, wherever less is turned so."""
    _Turns(graph).run()


class _Turns:
    """Values whose first two axes are exchanged, by the parts of the graph that they are in."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._part: dict[ir.Value, ir.Value] = {}
        self._writers: dict[ir.Node, Write] = {}
        self._sources: list[ir.Node] = []
        self._returns: list[ir.Node] = []

    def run(self) -> None:
        for node in self._graph:
            self._look_at(node)
        worth = self._worth()
        if not any(worth.values()):
            return
        names = Builder("lying", self._graph)
        lying = {node.outputs[0]: node.inputs[0] for node in self._sources}
        for node in list(self._graph):
            if node in self._writers and worth[self._of(node.outputs[0])]:
                builder = names.nested()
                inputs = [lying.get(value, value) if value is not None else None for value in node.inputs]
                for old, new in zip(node.outputs, self._writers[node](builder, inputs), strict=True):
                    dims = dims_of(old)
                    new.type, new.shape = old.type, ir.Shape([dims[1], dims[0], *dims[2:]])
                    lying[old] = new
                self._graph.insert_before(node, builder.nodes)
            elif node in self._returns and worth[self._of(node.inputs[0])]:  # type: ignore[arg-type]
                put_in_place(node.outputs[0], lying[node.inputs[0]])  # type: ignore[arg-type, index]
        self._turn_for_others({old: new for old, new in lying.items() if new is not None and worth[self._of(old)]})

    def _look_at(self, node: ir.Node) -> None:
        turned = [value for value in node.inputs if value in self._part]
        if _is_turn(node):
            if turned:
                self._returns.append(node)
            else:
                self._sources.append(node)
                self._part[node.outputs[0]] = node.outputs[0]
            return
        writer = _writer(node, self._part.keys()) if turned else None
        if writer is None:
            return
        self._writers[node] = writer
        for value in (*node.outputs, *turned):
            self._part.setdefault(value, value)
            self._part[self._of(value)] = self._of(node.outputs[0])

    def _of(self, value: ir.Value) -> ir.Value:
        """What stands for the part of the graph that ``value`` is in."""
        while self._part[value] is not value:
            value = self._part[value]
        return value

    def _worth(self) -> dict[ir.Value, bool]:
        """Of each part whether fewer values are turned if it is computed as it lies."""
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

    def _turn_for_others(self, lying: dict[ir.Value, ir.Value]) -> None:
        """Turn what others read, and drop what nobody reads any more."""
        sources = {node.outputs[0] for node in self._sources}
        written = [node for node in self._graph if node in self._writers or node in self._returns]
        gone = [node for node in written if any(value in lying for value in (*node.inputs, *node.outputs))]
        names = Builder("turned", self._graph)
        for old, new in lying.items():
            if old in sources:
                continue
            users = [(user, place) for user, place in old.uses() if user not in gone]
            if not users and not old.is_graph_output():
                continue
            builder = names.nested()
            turn = builder.op("Transpose", new, perm=[1, 0, *range(2, len(dims_of(old)))])
            self._graph.insert_after(old.producer(), builder.nodes)  # type: ignore[arg-type]
            put_in_place(old, turn)
        for node in reversed(gone):
            if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                self._graph.remove(node, safe=True)
        for node in self._sources:
            if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                self._graph.remove(node, safe=True)


def _is_turn(node: ir.Node) -> bool:
    """Whether ``node`` exchanges the first two axes, and no others."""
    if node.op_type != "Transpose" or node.domain or "perm" not in node.attributes:
        return False
    perm = list(node.attributes["perm"].as_ints())
    return perm[:2] == [1, 0] and perm[2:] == list(range(2, len(perm))) and len(dims_of(node.outputs[0])) == len(perm)


def _writer(node: ir.Node, turned: Sequence[ir.Value] | object) -> Write | None:
    """How ``node`` is written of its inputs as they lie; None if it cannot be."""
    if node.domain or not all(len(dims_of(value)) > 1 for value in node.outputs):
        return None
    given = [value for value in node.inputs if value is not None]
    own = [value for value in given if value in turned]  # type: ignore[operator]
    others = [value for value in given if value not in turned]  # type: ignore[operator]
    rank = len(dims_of(node.outputs[0]))
    kind = node.op_type

    def again(builder: Builder, inputs: list[ir.Value | None]) -> list[ir.Value]:
        return builder.append(node.op_type, inputs, node.attributes.values(), len(node.outputs))

    if kind in ARITHMETIC:
        alike = all(len(dims_of(value)) == rank for value in own)
        return again if alike and all(_is_the_same_turned(value, rank) for value in others) else None
    if kind == "MatMul":
        by_weights = len(own) == 1 and given[0] in own and len(dims_of(given[1])) == 2 and len(dims_of(given[0])) > 2
        return again if by_weights or (len(own) == 2 and all(len(dims_of(v)) > 3 for v in own)) else None
    if given[0] not in own or (len(own) > 1 and kind != "Concat"):
        return None
    if kind == "Reshape":
        before, after = dims_of(given[0]), dims_of(node.outputs[0])
        if before[:2] != after[:2] or not are_plain(before[:2]) or not all(isinstance(size, int) for size in after[2:]):
            return None
        if 0 in after:
            return None
        return lambda builder, inputs: [builder.op("Reshape", inputs[0], builder.constant([0, 0, *after[2:]]))]
    if kind in ("Split", "Concat"):
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        return again if axis % rank > 1 and (kind == "Split" or not others) else None
    if kind in _BY_AXES:
        axes = None if len(given) < 2 or given[1].const_value is None else given[1].const_value.numpy().ravel().tolist()
        most = rank if kind == "Unsqueeze" else len(dims_of(given[0]))
        return again if axes and all(axis % most > 1 for axis in axes) else None
    if kind == "Transpose":
        perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else []
        return again if perm[:2] == [0, 1] else None
    return None


def _is_the_same_turned(value: ir.Value, rank: int) -> bool:
    """Whether ``value`` is spread over both axes, in what has so many."""
    dims = dims_of(value)
    return value.shape is not None and (len(dims) < rank - 1 or [*[1] * (rank - len(dims)), *dims][:2] == [1, 1])
