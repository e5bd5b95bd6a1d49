"""Loops whose last steps the next run of a stream computes again: each is cut into two, of which the first is carried.

A run begins with steps of the run before (:class:`rnncore.export.graph.run_overlap.RunOverlap`).  A loop behind all that
looks back without padding reads each step once all the same.  One before that reads them twice, so its state must be that
of the step where the next run begins.  The loop over the steps up to there ends with that state, which the file carries; a
second one goes on from it to the end of the run, for the answers, and is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.replace import put_in_place
from rnncore.export.graph.run_overlap import RunOverlap
from rnncore.export.lowering.projection import Projection
from rnncore.export.tracing.recorder import DOMAIN, OP_TYPE, Call
from rnncore.export.tracing.rows import inner_calls
from rnncore.export.tracing.states import FIRST_STATE

AGAIN = "@again"
"""At the end of the name of a second loop: what stands before it is the layer."""

_LAST = np.iinfo(np.int64).max


def split_loops(model: ir.Model, calls: Mapping[str, Call], runs: RunOverlap) -> dict[str, Call]:
    """Cut the loops in ``model`` that need it in two, in place; returns the second ones, by name."""
    inner, second = inner_calls(model), dict[str, Call]()
    for node in [node for node in model.graph if node.domain == DOMAIN and node.op_type == OP_TYPE]:
        name = node.attributes["call"].as_string()
        again = runs.again(dims_of(node.inputs[0])[1])
        if again and name not in inner:
            second[name + AGAIN] = replace(calls[name], name=name + AGAIN, given_state=True, starts=None)
            _Split(model.graph, node, again).write(len(calls[name].cell.state_sizes))
    return second


@dataclass
class _Split:
    """One loop, whose last ``again`` steps the next run has again."""

    graph: ir.Graph
    node: ir.Node
    again: int

    def __post_init__(self) -> None:
        self.builder = Builder(self.node.attributes["call"].as_string() + AGAIN, self.graph)

    def write(self, states: int) -> None:
        """Put the two in the place of the one."""
        node, (x, z) = self.node, self.node.inputs[:2]
        assert x is not None and z is not None
        projection = Projection.between(x, z)
        halves = []
        for start, end in ((0, -self.again), (-self.again, _LAST)):
            part = self._part(x, start, end)
            if z is x:
                halves.append((part, part))
            elif projection is None:
                halves.append((part, self._part(z, start, end)))
            else:
                halves.append((part, self._like(projection.emit(self.builder, part, [], copy=False)[0], z, part)))
        given = list(node.inputs[FIRST_STATE:])
        y, *ends = self._call("", halves[0], given)
        y_again, *finals = self._call(AGAIN, halves[1], [*ends, *given[states:]])
        results = [self._like(self.builder.op("Concat", y, y_again, axis=1), node.outputs[0], None), *finals]
        self.graph.insert_before(node, self.builder.nodes)
        for old, new in zip(node.outputs, results, strict=True):
            put_in_place(old, new)
        self.graph.remove(node, safe=True)

    def _call(self, ending: str, half: tuple[ir.Value, ir.Value], given: Sequence[ir.Value | None]) -> list[ir.Value]:
        """A loop over some of the steps, from the states and with the values ``given``."""
        (part, z), name = half, self.node.attributes["call"].as_string() + ending
        made = self.builder.append(
            OP_TYPE, [part, z, None, *given], [ir.AttrString("call", name)], len(self.node.outputs), DOMAIN
        )
        return [self._like(made[0], self.node.outputs[0], part)] + [
            self._like(final, old, None) for final, old in zip(made[1:], self.node.outputs[1:], strict=True)
        ]

    def _part(self, value: ir.Value, start: int, end: int) -> ir.Value:
        """The steps of ``value`` from one to another."""
        part = self.builder.op("Slice", value, *(self.builder.constant([n]) for n in (start, end, 1)))
        # Names for both: a branch for one step stands in the graph, and a fixed number there would contradict it.
        steps = f"last {self.again}" if end == _LAST else f"{dims_of(value)[1]} - {self.again}"
        part.type, part.shape = value.type, ir.Shape([dims_of(value)[0], steps, *dims_of(value)[2:]])
        return part

    @staticmethod
    def _like(value: ir.Value, old: ir.Value, part: ir.Value | None) -> ir.Value:
        """``value`` with the type and sizes of ``old``, and the steps of ``part`` if it has some only."""
        value.type = old.type
        if old.shape is not None:
            sizes = dims_of(old) if part is None else [*dims_of(old)[:1], dims_of(part)[1], *dims_of(old)[2:]]
            value.shape = ir.Shape(sizes)
        return value
