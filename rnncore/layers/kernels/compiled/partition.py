"""A traced step as two graphs: one that goes forward in time, and one that goes back."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, fx

from rnncore.layers.kernels.compiled.products import CutWeight, Factors, as_factors, cut_products
from rnncore.layers.kernels.compiled.trace import StepGraph, aten

_VIEWS = {
    getattr(aten, name)
    for name in ("t", "transpose", "permute", "view", "expand", "unsqueeze", "squeeze", "split", "slice", "select")
}

Place = tuple[str, int]
"""Where a value is: its kind, and which one of that kind.

Values of a step that last: "z", "state" (before the step), "keep", "forward" (what the forward half writes), "back" (what
the other half writes).  Values that steps share: "tensor" (parameters and buffers), "cut" (weights in parts), "total" (what
all steps add to).  Handed from step to step: "d_y", "d_state", and "d_before", its value for the step before.
"""

Terms = list[tuple[Place, Place, bool]]
"""Products ``rows^T columns``, transposed or not, whose sum over all steps is the gradient of a weight."""


@dataclass
class HalfStep:
    """A graph that is run once for each step of time.

    inputs: what each of its inputs is.  writes: pairs of an input's number and the value that it is to have afterwards.
    """

    root: fx.GraphModule
    graph: fx.Graph
    inputs: list[Place]
    writes: list[tuple[int, fx.Node]]

    def writing(self) -> fx.GraphModule:
        """A module that writes into its inputs."""
        graph, known = self._copy()
        targets = graph.find_nodes(op="placeholder")
        for k, value in self.writes:
            graph.call_function(aten.copy_.default, (targets[k], known[value]))
        return self._module(graph, [])

    def returning(self) -> fx.GraphModule:
        """A module that returns what :meth:`writing` would write."""
        graph, known = self._copy()
        return self._module(graph, [known[value] for _, value in self.writes])

    def _copy(self) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
        graph = fx.Graph()
        known: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(self.graph, known)
        return graph, known

    def _module(self, graph: fx.Graph, results: list[fx.Node]) -> fx.GraphModule:
        graph.output(tuple(results))
        graph.lint()
        return fx.GraphModule(self.root, graph)


@dataclass
class SplitStep:
    """Both graphs, and what they have to do with each other.

    outs, back, totals: nodes of the traced step of the kinds "forward", "back" and "total", for their shapes.  y, states:
    which of ``outs`` they are.  d_z: whether the step depends on z, whose gradient is ``back[0]`` then.  gradients: of each
    parameter and buffer the terms, or which of ``totals`` it is, or None.
    """

    forward: HalfStep
    backward: HalfStep
    outs: list[fx.Node]
    back: list[fx.Node]
    totals: list[fx.Node]
    y: int
    states: list[int]
    d_z: bool
    gradients: list[Terms | int | None]
    cuts: list[CutWeight]


def split_step(step: StepGraph) -> SplitStep:
    """Cut ``step`` in two; its graph is changed."""
    cuts = cut_products(step)
    _separate(step)
    given: dict[fx.Node, Place] = {step.z: ("z", 0), step.d_outputs[0]: ("d_y", 0)}
    for kind, nodes in (
        ("state", step.states),
        ("keep", step.keep),
        ("tensor", step.tensors),
        ("cut", list(cuts)),
        ("d_state", step.d_outputs[1:]),
    ):
        given.update((node, (kind, k)) for k, node in enumerate(nodes))
    going_back = _depending_on(step.d_outputs, step.graph)
    batch = step.z.meta["val"].shape[0]
    gradients = [None if node is None else as_factors(node, batch) or node for node in step.d_tensors]

    # Factors of a gradient are written by the half that knows them, into memory that holds those of all steps.
    outs, back = list(dict.fromkeys(step.outputs)), [] if step.d_z is None else [step.d_z]
    for gradient in gradients:
        for factors in gradient if isinstance(gradient, list) else ():
            for node in (factors.rows, factors.columns):
                if node not in step.states:
                    known = back if node in going_back else outs
                    known += [] if node in known else [node]
    totals = list(dict.fromkeys(gradient for gradient in gradients if isinstance(gradient, fx.Node)))
    asked = [*back, *totals, *(node for node in step.d_states if node is not None)]
    outs += [node for node in _crossing(step.graph, asked, given, going_back) if node not in outs]

    def place(node: fx.Node) -> Place:
        if node in step.states:
            return "state", step.states.index(node)
        return ("back", back.index(node)) if node in going_back else ("forward", outs.index(node))

    def gradient_of(found: fx.Node | list[Factors] | None) -> Terms | int | None:
        if isinstance(found, list):
            return [(place(factors.rows), place(factors.columns), factors.transposed) for factors in found]
        return None if found is None else totals.index(found)

    return SplitStep(
        _forward(step, given, outs),
        _backward(step, {**given, **{node: ("forward", k) for k, node in enumerate(outs)}}, back, totals),
        outs,
        back,
        totals,
        outs.index(step.outputs[0]),
        [outs.index(node) for node in step.outputs[1:]],
        step.d_z is not None,
        [gradient_of(gradient) for gradient in gradients],
        list(cuts.values()),
    )


def _separate(step: StepGraph) -> None:
    """Give each state a value of its own: each is written into its own memory."""
    seen: set[fx.Node] = set()
    for k, node in enumerate(step.outputs[1:], 1):
        if node in seen:
            with step.graph.inserting_after(node):
                copy = step.graph.call_function(aten.clone.default, (node,))
            copy.meta = dict(node.meta)
            step.set_output(k, copy)
        seen.add(node)


def _depending_on(roots: Iterable[fx.Node], graph: fx.Graph) -> set[fx.Node]:
    found = set(roots)
    for node in graph.nodes:
        if any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _crossing(
    graph: fx.Graph, wanted: Iterable[fx.Node], given: dict[fx.Node, Place], going_back: set[fx.Node]
) -> list[fx.Node]:
    """What the forward half has to save: all values but views, which cost nothing to make."""
    saved = {
        node
        for node in graph.nodes
        if node.op == "call_function"
        and node not in going_back
        and isinstance(node.meta.get("val"), Tensor)
        and not _is_view(node)
    }
    needed = _needed(wanted, {*saved, *given})
    return [node for node in graph.nodes if node in saved and node in needed]


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        (node,) = node.all_input_nodes
    return getattr(node.target, "overloadpacket", None) in _VIEWS


def _needed(wanted: Iterable[fx.Node], known: Iterable[fx.Node]) -> set[fx.Node]:
    """``wanted`` and all that it is made of, down to what is known."""
    ends, needed, stack = set(known), set[fx.Node](), list(wanted)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(() if node in ends else node.all_input_nodes)
    return needed


def _forward(step: StepGraph, given: dict[fx.Node, Place], outs: list[fx.Node]) -> HalfStep:
    half = _Half(step.module, given, outs)
    for k, node in enumerate(outs):
        half.write(("forward", k), half.known[node])
    return half.finished()


def _backward(step: StepGraph, given: dict[fx.Node, Place], back: list[fx.Node], totals: list[fx.Node]) -> HalfStep:
    half = _Half(step.module, given, [*back, *totals, *(node for node in step.d_states if node is not None)])
    for k, node in enumerate(back):
        half.write(("back", k), half.known[node])
    for k, node in enumerate(totals):
        total = half.input(("total", k))
        half.write(total, half.graph.call_function(aten.add.Tensor, (total, half.known[node])))
    for k, d_state in enumerate(step.d_states):
        target = half.input(("d_before", k))
        if d_state is None:
            half.write(target, half.graph.call_function(aten.zeros_like.default, (target,)))
        else:
            half.write(target, half.known[d_state])
    return half.finished()


class _Half:
    """A graph in the making: all that ``wanted`` needs, where the values of ``given`` are inputs."""

    def __init__(self, root: fx.GraphModule, given: dict[fx.Node, Place], wanted: Iterable[fx.Node]) -> None:
        self.root = root
        self.graph = fx.Graph()
        self.known: dict[fx.Node, fx.Node] = {}
        self._inputs: dict[fx.Node, Place] = {}
        self._writes: list[tuple[fx.Node, fx.Node]] = []
        needed = _needed(wanted, given)
        for node in root.graph.nodes:
            if node in needed:
                self.known[node] = (
                    self.input(given[node]) if node in given else self.graph.node_copy(node, self.known.__getitem__)
                )

    def input(self, place: Place) -> fx.Node:
        """A new input."""
        node = self.graph.placeholder(f"{place[0]}_{place[1]}")
        self._inputs[node] = place
        return node

    def write(self, target: Place | fx.Node, value: fx.Node) -> None:
        """Have ``value`` written into an input, a new one if it is not there yet."""
        self._writes.append((target if isinstance(target, fx.Node) else self.input(target), value))

    def finished(self) -> HalfStep:
        """The graph, its inputs first."""
        inputs = list(self._inputs)
        for node in reversed(inputs):
            next(iter(self.graph.nodes)).prepend(node)
        writes = [(inputs.index(target), value) for target, value in self._writes]
        return HalfStep(self.root, self.graph, list(self._inputs.values()), writes)
