"""States that are carried linearly in other words, such as ``h + z * (new - h)``, as one product and one sum.

A step has fewer nodes so, and steps can be put together, see :mod:`rnncore.export.lowering.linear_steps`.  What is multiplied
and added does not follow from the state: it is made for all steps at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import broadcast, dims_of
from rnncore.export.lowering.linear_steps import Line, Nodes, values_behind
from rnncore.export.lowering.steps import StepGraph

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Neg")


def straighten(step: StepGraph) -> StepGraph:
    """``step`` with such states written so; itself if there are none."""
    nodes = Nodes.of(step)
    count = len(step.inputs) - step.reads
    found: dict[ir.Value, _Straight] = {}
    for told, state in zip(step.outputs[-count:], step.inputs[step.reads :], strict=True):
        told = _as_made(told, nodes)
        apart = values_behind([state], step.nodes)
        if told not in found and Line.of(told, state, replace(nodes, behind=apart)) is None:
            straight = _Straight.of(told, state, replace(nodes, behind=apart))
            if straight is not None:
                found[told] = straight
    return _written(step, found) if found else step


def _as_made(told: ir.Value, nodes: Nodes) -> ir.Value:
    node = nodes.maker.get(told)
    return node.inputs[0] if node is not None and node.op_type == "Identity" and node.inputs[0] in nodes.maker else told  # type: ignore[return-value]


@dataclass
class _Straight:
    """``told`` as ``nodes`` that end with it."""

    told: ir.Value
    nodes: list[ir.Node]

    @classmethod
    def of(cls, told: ir.Value, state: ir.Value, nodes: Nodes) -> _Straight | None:
        """How ``told`` is made of ``state`` by one product and one sum; None if it is no such thing."""
        maker = Builder("straight", ir.Graph([], [], nodes=[], name="straight"))

        def op(op_type: str, *inputs: ir.Value) -> ir.Value:
            value = maker.op(op_type, *inputs)
            value.type, value.shape = inputs[-1].type, ir.Shape(broadcast([dims_of(own) for own in inputs]))
            return value

        after = _extreme(told, state, nodes, op)
        if after is None:
            line = _Lines(state, nodes, op).of(told)
            if line is None or line.a is None or line.b is None:
                return None
            after = op("Add", op("Mul", state, line.a), line.b)
        return cls(after, maker.nodes) if dims_of(after) == dims_of(told) else None


def _extreme(told: ir.Value, state: ir.Value, nodes: Nodes, op: Callable[..., ir.Value]) -> ir.Value | None:
    """``max(state - a, b)`` as ``max(state + -a, b)``; None for anything else."""
    node = nodes.maker.get(told)
    if node is None or node.op_type not in ("Max", "Min") or len(node.inputs) != 2:
        return None
    for inner, b in (node.inputs, reversed(node.inputs)):
        less = None if inner is None else nodes.maker.get(inner)
        if less is not None and less.op_type == "Sub" and b is not None and nodes.apart(b):
            one, a = less.inputs
            if one is state and a is not None and nodes.apart(a):
                return op(node.op_type, op("Add", state, op("Neg", a)), b)
    return None


@dataclass(frozen=True)
class _Sum:
    """``a`` times the state plus ``b``; None for zero."""

    a: ir.Value | None
    b: ir.Value | None


class _Lines:
    """Takes values apart into what they make of a state, and writes both by ``op``."""

    def __init__(self, state: ir.Value, nodes: Nodes, op: Callable[..., ir.Value]) -> None:
        self._nodes, self._op = nodes, op
        self._found: dict[ir.Value, _Sum | None] = {state: _Sum(_one(state), None)}

    def of(self, value: ir.Value) -> _Sum | None:
        """None if the state is not only multiplied and added to."""
        if value not in self._found:
            self._found[value] = self._of(value)
        return self._found[value]

    def _of(self, value: ir.Value) -> _Sum | None:
        if self._nodes.apart(value):
            return _Sum(None, value)
        node = self._nodes.maker[value]
        if node.op_type not in _ARITHMETIC or node.domain or None in node.inputs:
            return None
        parts = [self.of(own) for own in node.inputs if own is not None]
        if any(part is None for part in parts):
            return None
        left, right = parts[0], parts[-1]
        assert left is not None and right is not None
        if node.op_type == "Neg":
            return _Sum(self._negative(left.a), self._negative(left.b))
        if node.op_type in ("Add", "Sub"):
            return _Sum(self._together(node.op_type, left.a, right.a), self._together(node.op_type, left.b, right.b))
        if right.a is not None and (left.a is not None or node.op_type == "Div"):
            return None  # a product of states, or something over one
        one, factor = (left, right.b) if left.a is not None else (right, left.b)
        assert factor is not None
        return _Sum(self._scaled(node.op_type, one.a, factor), self._scaled(node.op_type, one.b, factor))

    def _negative(self, value: ir.Value | None) -> ir.Value | None:
        return None if value is None else self._op("Neg", value)

    def _together(self, op_type: str, left: ir.Value | None, right: ir.Value | None) -> ir.Value | None:
        if right is None:
            return left
        if left is None:
            return right if op_type == "Add" else self._negative(right)
        return self._op(op_type, left, right)

    def _scaled(self, op_type: str, value: ir.Value | None, factor: ir.Value) -> ir.Value | None:
        if value is None or (op_type == "Mul" and _is_one(value)):
            return None if value is None else factor
        return self._op(op_type, value, factor)


def _one(state: ir.Value) -> ir.Value:
    assert state.dtype is not None
    tensor = ir.tensor(np.ones((), state.dtype.numpy()))
    return ir.Value(name="one", type=state.type, shape=ir.Shape([]), const_value=tensor)


def _is_one(value: ir.Value) -> bool:
    return value.name == "one" and value.const_value is not None


def _written(step: StepGraph, found: dict[ir.Value, _Straight]) -> StepGraph:
    """With those values, and all that follows from them, written anew."""
    new: dict[ir.Value, ir.Value] = {}
    nodes: list[ir.Node] = []
    for node in step.nodes:
        if not new.keys().isdisjoint(value for value in node.inputs if value is not None):
            copy = ir.Node(
                node.domain,
                node.op_type,
                [None if value is None else new.get(value, value) for value in node.inputs],
                list(node.attributes.values()),
                num_outputs=len(node.outputs),
            )
            for old, value in zip(node.outputs, copy.outputs, strict=True):
                value.name, value.type, value.shape = old.name, old.type, old.shape
                new[old] = value
            nodes.append(copy)
        else:
            nodes.append(node)
        for value in node.outputs:
            if value in found:
                for own in found[value].nodes:
                    for place, given in enumerate(own.inputs):
                        if given in new:
                            own.replace_input_with(place, new[given])
                nodes += found[value].nodes
                new[value] = found[value].told
    outputs = [new.get(value, value) for value in step.outputs]
    return StepGraph(step.owner, step.inputs, outputs, step.hoisted, nodes, step.reads)
