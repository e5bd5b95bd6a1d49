"""A single step without a loop: what a step takes apart, reshapes and puts together again is read as it lies.

Every push of a stream pays for each of these nodes: nine of the twenty of a minGRU did nothing else.
"""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import adds_one, ends_of
from rnncore.export.graph.views import VIEWS
from rnncore.export.lowering.layouts import numbers_of
from rnncore.export.lowering.put_together import parts_of
from rnncore.export.lowering.recurrence import Recurrence, told_apart
from rnncore.export.lowering.steps import StepGraph

_TIME = 1  # the axis


def emit_step(builder: Builder, rec: Recurrence) -> list[ir.Value]:
    """The only step of z [batch, 1, size], without a loop: [y [batch, 1, size], *final states]."""
    assert rec.step is not None
    step = _OneStep(builder, rec, rec.step)
    for node in rec.step.nodes:
        step.write(node)
    y, *finals = rec.step.outputs
    return told_apart(builder, [step.read_over_time(y)], [step.read(value) for value in finals])


class _OneStep:
    """Writes the nodes of a step, with values over time, [batch, 1, n], where it asks for such of what has no time."""

    def __init__(self, builder: Builder, rec: Recurrence, step: StepGraph) -> None:
        self._builder, self._step = builder, step
        z, *others = step.inputs
        self._known = {**rec.weights, **dict(zip(others, [*rec.states, *rec.captured], strict=True))}
        self._lying: dict[ir.Value, ir.Value] = {}  # values of the step over time, as they are outside of it
        if rec.projection is None:
            self._lying[z] = rec.z
        else:
            self._known[z] = rec.single_z(builder)

    def write(self, node: ir.Node) -> None:
        """Write ``node`` of the step; nothing, if what it gives is there already."""
        lying = self._lying.get(node.inputs[0]) if node.inputs else None  # type: ignore[arg-type]
        if lying is not None and (parts := parts_of(node, lying)):
            self._lying.update(zip(node.outputs, parts, strict=True))
        elif lying is not None and _adds_time(node):
            self._known[node.outputs[0]] = lying
        elif lying is not None and node.op_type == "Reshape" and _takes_any_rank(node):
            inputs = [lying, self.read(node.inputs[1])]  # type: ignore[arg-type]
            self._known[node.outputs[0]] = self._builder.append("Reshape", inputs, node.attributes.values(), 1)[0]
        else:
            for value in node.inputs:
                if value is not None:
                    self.read(value)
            self._step.write([node], self._builder, self._known)

    def read(self, value: ir.Value) -> ir.Value:
        """What stands for ``value`` of the step."""
        if value in self._lying and value not in self._known:
            self._known[value] = self._builder.op("Squeeze", self._lying[value], self._builder.constant([_TIME]))
        return self._step.found(value, self._builder, self._known)

    def read_over_time(self, y: ir.Value) -> ir.Value:
        """``y`` [batch, n] as [batch, 1, n]."""
        if y in self._lying:
            return self._lying[y]
        maker = y.producer()
        if maker in self._step.nodes and _drops_time(maker):
            return self.read(maker.inputs[0])  # type: ignore[arg-type]
        return self._builder.op("Unsqueeze", self.read(y), self._builder.constant([_TIME]))


def _adds_time(node: ir.Node) -> bool:
    """Whether ``node`` makes [batch, 1, n] of [batch, n]."""
    return node.op_type in VIEWS and _gain_time(*ends_of(node))


def _drops_time(node: ir.Node) -> bool:
    """The inverse of :func:`_adds_time`."""
    return node.op_type in VIEWS and _gain_time(*reversed(ends_of(node)))


def _gain_time(before: list[int | str | None], after: list[int | str | None]) -> bool:
    return len(before) == _TIME + 1 and adds_one(before, after, _TIME)


def _takes_any_rank(node: ir.Node) -> bool:
    """Whether ``Reshape`` gives the same of what has an axis of 1 behind its first: it copies no other size than that."""
    sizes = numbers_of(node, 1)
    return sizes is not None and 0 not in sizes[0 if node.attributes.get_int("allowzero", 0) else 1 :]
