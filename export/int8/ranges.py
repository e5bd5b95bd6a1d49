"""In which interval a value of a graph must lie, whatever the inputs: a proof by interval arithmetic, loops included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

INF = float("inf")
WIDENINGS = 3  # rounds in which a carried value may still grow before it counts as unbounded


@dataclass(frozen=True)
class Range:
    """low <= value <= high for every entry, up to rounding; infinite where nothing is known."""

    low: float = -INF
    high: float = INF

    @property
    def bounded(self) -> bool:
        """Both ends are finite."""
        return np.isfinite(self.low) and np.isfinite(self.high)

    @property
    def largest(self) -> float:
        """Largest absolute value."""
        return max(abs(self.low), abs(self.high))

    def hull(self, *others: Range) -> Range:
        """The smallest range that holds all."""
        return Range(min(r.low for r in (self, *others)), max(r.high for r in (self, *others)))

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def __neg__(self) -> Range:
        return Range(-self.high, -self.low)

    def __sub__(self, other: Range) -> Range:
        return self + -other

    def __mul__(self, other: Range) -> Range:
        # Values are finite, so that 0 times an unbounded one is 0.
        ends = [a * b if a and b else 0.0 for a in (self.low, self.high) for b in (other.low, other.high)]
        return Range(min(ends), max(ends))


ANYTHING, UNIT, SIGNED_UNIT = Range(), Range(0.0, 1.0), Range(-1.0, 1.0)

_FIXED = dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax"), UNIT) | dict.fromkeys(
    ("Tanh", "Softsign", "Erf", "Sin", "Cos"), SIGNED_UNIT
)
_MOVES = {"Identity", "Split", "Gather", "Slice", "Squeeze", "Unsqueeze", "Transpose", "Reshape", "Expand", "Flatten"}
_RULES: dict[str, Callable[..., Range]] = {
    "Mul": lambda a, b: a * b,
    "Sub": lambda a, b: a - b,
    "Neg": lambda a: -a,
    "Relu": lambda a: Range(max(a.low, 0.0), max(a.high, 0.0)),
    "Concat": lambda a, *more: a.hull(*more),
    "Where": lambda _, a, b: a.hull(b),
    "Max": lambda *all_: Range(max(r.low for r in all_), max(r.high for r in all_)),
    "Min": lambda *all_: Range(min(r.low for r in all_), min(r.high for r in all_)),
}


class Ranges:
    """Ranges of all values of ``graph`` and of the graphs nested in it.

    Args:
        graph: a main graph.
        carried: graph inputs that only ever hold what a stream starts with (the range) or what the graph output put
            out one call before.
    """

    def __init__(self, graph: ir.Graph, carried: Mapping[ir.Value, tuple[Range, ir.Value]]) -> None:
        self._known: dict[ir.Value, Range] = {}
        ports, outputs = list(carried), [output for _, output in carried.values()]
        self._settle(ports, [start for start, _ in carried.values()], outputs, lambda: self._read(graph))

    def of(self, value: ir.Value | None) -> Range:
        """The range of ``value``."""
        if value is None:
            return ANYTHING
        if value not in self._known:
            self._known[value] = _of_constant(value)
        return self._known[value]

    def _settle(
        self, ports: Sequence[ir.Value], starts: Sequence[Range], ends: Sequence[ir.Value], run: Callable[[], None]
    ) -> None:
        """Ranges of what is carried from ``ends`` back to ``ports``: by induction, from ranges that a round keeps."""
        ranges = list(starts)
        for turn in range(WIDENINGS + len(ports) + 1):
            self._known.update(zip(ports, ranges, strict=True))
            run()
            wider = [old.hull(self.of(end)) for old, end in zip(ranges, ends, strict=True)]
            if wider == ranges:
                return
            ranges = [
                old if new == old else new if turn < WIDENINGS else ANYTHING
                for old, new in zip(ranges, wider, strict=True)
            ]
        raise AssertionError("every round after the first few makes one more range unbounded")

    def _read(self, graph: ir.Graph) -> None:
        for node in graph:
            if node.op_type in ("Loop", "Scan") and node.domain == "":
                self._read_loop(node)
            elif node.op_type == "If" and node.domain == "":
                self._read_branches(node)
            else:
                found = self._of_node(node)
                self._known.update((value, found) for value in node.outputs)

    def _read_branches(self, node: ir.Node) -> None:
        branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
        for branch in branches:
            self._read(branch)
        for value, *results in zip(node.outputs, *(branch.outputs for branch in branches), strict=True):
            self._known[value] = self.of(results[0]).hull(self.of(results[1]))

    def _read_loop(self, node: ir.Node) -> None:
        body = node.attributes["body"].as_graph()
        first = 2 if node.op_type == "Loop" else 0  # trip count and condition come before the states of a Loop
        scanned = 0 if node.op_type == "Loop" else node.attributes["num_scan_inputs"].as_int()
        states = len(node.inputs) - first - scanned
        inputs = [self.of(value) for value in node.inputs]
        self._known.update(zip(body.inputs, inputs, strict=True))
        skipped = 1 if node.op_type == "Loop" else 0  # a Loop's body puts out its condition first
        self._settle(
            body.inputs[first : first + states],
            inputs[first : first + states],
            body.outputs[skipped : skipped + states],
            lambda: self._read(body),
        )
        for i, value in enumerate(node.outputs):
            found = self.of(body.outputs[skipped + i])
            self._known[value] = found.hull(inputs[first + i]) if i < states else found

    def _of_node(self, node: ir.Node) -> Range:
        if node.domain or not node.inputs:
            return ANYTHING
        if node.op_type in _FIXED:
            return _FIXED[node.op_type]
        if node.op_type in _MOVES:
            return self.of(node.inputs[0])
        if node.op_type == "Add":
            return self._of_sum(node)
        rule = _RULES.get(node.op_type)
        return rule(*(self.of(value) for value in node.inputs)) if rule else ANYTHING

    def _of_sum(self, node: ir.Node) -> Range:
        """A sum; the mixture a + m (b - a) of a gate m lies between a and b, as does (1 - m) a + m b."""
        for a, other in (node.inputs, reversed(node.inputs)):
            for gate, difference in _factors(other, "Mul"):
                for b, subtracted in _factors(difference, "Sub")[:1]:
                    if subtracted is a and self._is_gate(gate):
                        return self.of(a).hull(self.of(b))
        for first, second in (node.inputs, reversed(node.inputs)):
            for gate, b in _factors(first, "Mul"):
                for rest, a in _factors(second, "Mul"):
                    for one, subtracted in _factors(rest, "Sub")[:1]:
                        if subtracted is gate and self.of(one) == Range(1.0, 1.0) and self._is_gate(gate):
                            return self.of(a).hull(self.of(b))
        left, right = node.inputs
        return self.of(left) + self.of(right)

    def _is_gate(self, value: ir.Value | None) -> bool:
        found = self.of(value)
        return found.low >= 0.0 and found.high <= 1.0


def _factors(value: ir.Value | None, op_type: str) -> list[tuple[ir.Value | None, ir.Value | None]]:
    """The two inputs of the node behind ``value``, in both orders, if it is of that type."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != op_type or node.domain:
        return []
    left, right = node.inputs
    return [(left, right), (right, left)]


def _of_constant(value: ir.Value) -> Range:
    if value.const_value is None or value.is_graph_input():
        return ANYTHING
    array = value.const_value.numpy()
    if not array.size or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        return ANYTHING
    return Range(float(array.min()), float(array.max()))
