"""Steps that carry a state by a product and a sum, or by a sum and a maximum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

import onnx_ir as ir

from rnncore.export.lowering.steps import StepGraph


@dataclass(frozen=True)
class Ring:
    """Two operators of which one distributes over the other, and what changes nothing: ``one`` times, ``none`` added."""

    times: str
    plus: str
    one: float
    none: float


LINEAR = Ring("Mul", "Add", 1.0, 0.0)
RINGS = (LINEAR, Ring("Add", "Max", 0.0, -inf), Ring("Add", "Min", 0.0, inf))


@dataclass(frozen=True)
class Nodes:
    """Of a step: which node makes a value, and which values follow from its states."""

    maker: Mapping[ir.Value, ir.Node]
    behind: frozenset[ir.Value]

    @classmethod
    def of(cls, step: StepGraph) -> Nodes:
        """Of this step."""
        maker = {value: node for node in step.nodes for value in node.outputs}
        return cls(maker, values_behind(step.inputs[step.reads :], step.nodes))

    def apart(self, value: ir.Value) -> bool:
        """Whether ``value`` does not follow from a state."""
        return value not in self.behind


def values_behind(values: Iterable[ir.Value], nodes: Iterable[ir.Node]) -> frozenset[ir.Value]:
    """``values`` and what follows from them."""
    behind = set(values)
    for node in nodes:
        if not behind.isdisjoint(value for value in node.inputs if value is not None):
            behind.update(node.outputs)
    return frozenset(behind)


@dataclass(frozen=True)
class Line:
    """A state that becomes ``state times a plus b``; a: None for nothing."""

    ring: Ring
    a: ir.Value | None
    b: ir.Value

    @classmethod
    def of(cls, told: ir.Value, state: ir.Value, nodes: Nodes) -> Line | None:
        """How ``told`` is made of ``state``; None for any other way."""
        node = nodes.maker.get(told)
        for ring in RINGS:
            for inner, b in _sides(node, ring.plus):
                if not nodes.apart(b):
                    continue
                if inner is state:
                    return cls(ring, None, b)
                for one, a in _sides(nodes.maker.get(inner), ring.times):
                    if one is state and nodes.apart(a):
                        return cls(ring, a, b)
        return None


def _sides(node: ir.Node | None, op_type: str) -> list[tuple[ir.Value, ir.Value]]:
    if node is None or node.op_type != op_type or len(node.inputs) != 2 or None in node.inputs:
        return []
    left, right = node.inputs
    return [(left, right), (right, left)]  # type: ignore[list-item]
