"""Small states that are carried by a product and a sum, or by a sum and a maximum, through blocks of steps side by side.

``s[t] = a[t] s[t-1] + b[t]`` of two steps is a step of the same kind, with ``a[2] a[1]`` and ``a[2] b[1] + b[2]`` (Blelloch
1990, "Prefix sums and their applications"); so is ``s[t] = max(s[t-1] + a[t], b[t])``.  So a sequence is cut into blocks.
Within all of them at once, what the steps up to each one do to whatever a block begins with is put together by doubling
distances (Hillis & Steele 1986, "Data parallel algorithms"); a loop goes from block to block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.lowering.linear_steps import LINEAR, Line, Nodes, Ring
from rnncore.export.lowering.recurrence import Recurrence
from rnncore.export.lowering.steps import StepGraph

_FEWEST = 32
"""Steps from which on blocks are faster than one loop."""
_MOST = 64
"""Numbers of all rows and states up to which a step costs its nodes, not its numbers: every round of doubling passes over all."""
_STEPS = 32
"""Of a block."""


def _is_plain(line: Line, state: ir.Value, reads: Sequence[ir.Value]) -> bool:
    """Whether all is of one kind of floats, has an axis of rows, and only factors are spread to more numbers."""
    dims, a = dims_of(state), line.a
    kinds = {value.dtype for value in (state, line.a, line.b) if value is not None}
    rows_apart = a is None or (len(dims_of(a)) == len(dims) if a in reads else len(dims_of(a)) < len(dims))
    known = a is None or a.shape is not None
    return (
        kinds <= {ir.DataType.FLOAT}
        and len(dims) > 1
        and all(isinstance(size, int) for size in dims[1:])
        and dims_of(line.b)[1:] == dims[1:]
        and rows_apart
        and known
    )


@dataclass(frozen=True)
class Blocks:
    """How each state of a step is carried; ``results``: which of the states behind a step are wanted of every step."""

    step: StepGraph
    lines: Sequence[Line]
    results: Sequence[int]

    @classmethod
    def of(cls, step: StepGraph, results: int) -> Blocks | None:
        """Whether all that ``step`` does is to carry its states so; None if not."""
        nodes = Nodes.of(step)
        states, told = step.inputs[step.reads :], step.outputs[results:]
        if not all(value in told for value in step.outputs[:results]):
            return None
        lines = [Line.of(after, state, nodes) for after, state in zip(told, states, strict=True)]
        reads = step.inputs[: step.reads]
        found = [line for line in lines if line is not None and line.b in reads]
        if len(found) < len(lines) or not all(_is_plain(*pair, reads) for pair in zip(found, states, strict=True)):
            return None
        if len({len(dims_of(state)) for state in states}) > 1 or len({line.b for line in found}) < len(found):
            return None
        if sum(prod(size for size in dims_of(state)[1:] if isinstance(size, int)) for state in states) > _MOST:
            return None
        return cls(step, found, [told.index(value) for value in step.outputs[:results]])

    def fit(self, builder: Builder, rec: Recurrence, time: ir.Value) -> ir.Value:
        """Whether blocks are right and faster, [1]: enough steps of few numbers, and no factor above one that could grow."""
        rows = builder.op("Shape", self._over_time(self.lines[0].b, builder, rec), start=1, end=2)
        numbers = sum(prod(self._sizes(line.b)) for line in self.lines)
        few = builder.op("LessOrEqual", rows, builder.constant([_MOST // max(numbers, 1)]))
        fits = builder.op("And", builder.op("GreaterOrEqual", time, builder.constant([_FEWEST])), few)
        for a in self._factors:
            if self._ring[a] == LINEAR:
                most = builder.op("ReduceMax", builder.op("Abs", self._over_time(a, builder, rec)), keepdims=0)
                fits = builder.op("And", fits, builder.op("LessOrEqual", most, _constant(builder, 1.0, a)))
        return fits

    def write(self, builder: Builder, rec: Recurrence, time: ir.Value) -> list[ir.Value]:
        """[*results [time, batch, ...], *final states [batch, ...]], held where the steps of a row are over."""
        cut = _Cut.of(builder, time, rec.along[0])
        values = {value: self._cut(builder, cut, rec, value) for value in (*self._factors, *self._terms)}
        after = self._within_blocks(builder, values)
        finals, before = self._from_block_to_block(builder, after, rec.states)
        reached = [
            _step(builder, line, builder.op("Unsqueeze", start, builder.constant([1])), after)
            for line, start in zip(self.lines, before, strict=True)
        ]
        return [*(cut.joined(builder, reached[i], self._sizes(self.lines[i].b)) for i in self.results), *finals]

    def _cut(self, builder: Builder, cut: _Cut, rec: Recurrence, value: ir.Value) -> ir.Value:
        """[blocks, steps, batch, ...] of what is read or weighs."""
        unit = _constant(builder, self._unit(value), value)
        rows = self._over_time(value, builder, rec)
        if value not in self._reads:
            axes = builder.op("Concat", cut.time, cut.batch, builder.constant([1] * (self._rank - 1)), axis=0)
            rows = builder.op("Expand", rows, axes)
        if rec.valid is not None:
            rows = builder.op("Where", _as_wide(builder, rec.valid, self._rank), rows, unit)
        return cut.blocks(builder, rows, unit, self._sizes(value))

    def _within_blocks(self, builder: Builder, values: dict[ir.Value, ir.Value]) -> dict[ir.Value, ir.Value]:
        """The factors and terms of all steps of a block up to each, behind those of a step that does nothing.

        Of twice as many steps in every round: those up to a step, and those up to the step before them.
        """
        distance, rest = 1, [0] * self._rank
        pads = builder.constant([0, 1, *rest, 0, 0, *rest])
        values = {v: builder.op("Pad", own, pads, _constant(builder, self._unit(v), v)) for v, own in values.items()}
        while distance < _STEPS:
            places = builder.constant([max(0, step - distance) for step in range(1 + _STEPS)])
            earlier = {v: builder.op("Gather", own, places, axis=1) for v, own in values.items()}
            terms = {line.b: _step(builder, line, earlier[line.b], values) for line in self.lines}
            factors = {a: builder.op(self._ring[a].times, values[a], earlier[a]) for a in self._factors}
            values, distance = {**factors, **terms}, 2 * distance
        return values

    def _from_block_to_block(
        self, builder: Builder, after: Mapping[ir.Value, ir.Value], starts: Sequence[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """(final states, the states that each block begins with [blocks, batch, ...])."""
        body = builder.nested()
        last = builder.constant(_STEPS)
        ends = [builder.op("Gather", value, last, axis=1) for value in after.values()]
        states = [body.input("state", _type(v), ("batch", *self._sizes(v))) for v in self._terms]
        read = {value: body.input("z", _type(value), ("batch", *self._sizes(value))) for value in after}
        made = [_step(body, line, state, read) for line, state in zip(self.lines, states, strict=True)]
        before = [body.op("Identity", state) for state in states]
        graph = body.subgraph([*states, *read.values()], [*made, *before], "body")
        found = builder.ops("Scan", [*starts, *ends], 2 * len(made), body=graph, num_scan_inputs=len(ends))
        return found[: len(made)], found[len(made) :]

    @property
    def _reads(self) -> list[ir.Value]:
        return self.step.inputs[: self.step.reads]

    @property
    def _rank(self) -> int:
        return len(dims_of(self.lines[0].b))

    @property
    def _factors(self) -> list[ir.Value]:
        return list(dict.fromkeys(line.a for line in self.lines if line.a is not None))

    @property
    def _terms(self) -> list[ir.Value]:
        return [line.b for line in self.lines]

    @property
    def _ring(self) -> dict[ir.Value, Ring]:
        return {value: line.ring for line in self.lines for value in (line.a, line.b) if value is not None}

    def _unit(self, value: ir.Value) -> float:
        """What a step has that does nothing."""
        return self._ring[value].one if value in self._factors else self._ring[value].none

    def _sizes(self, value: ir.Value) -> list[int]:
        """Of one row, with ones for axes that a weight does not have."""
        sizes = [size if isinstance(size, int) else 0 for size in dims_of(value)]
        return [*[1] * self._rank, *sizes][1 - self._rank :]

    def _over_time(self, value: ir.Value, builder: Builder, rec: Recurrence) -> ir.Value:
        """[time, batch, ...] of what is read, a weight as it is."""
        return (
            rec.along[self._reads.index(value)]
            if value in self._reads
            else self.step.found(value, builder, rec.weights)
        )


@dataclass(frozen=True)
class _Cut:
    """``count`` blocks of ``_STEPS`` steps each, of which the last ``missing`` ones are none; all are [1]."""

    time: ir.Value
    batch: ir.Value
    count: ir.Value
    missing: ir.Value

    @classmethod
    def of(cls, builder: Builder, time: ir.Value, along: ir.Value) -> _Cut:
        """Of what is read [time, batch, ...]."""
        steps = builder.constant([_STEPS])
        count = builder.op("Div", builder.op("Add", time, builder.constant([_STEPS - 1])), steps)
        missing = builder.op("Sub", builder.op("Mul", count, steps), time)
        return cls(time, builder.op("Shape", along, start=1, end=2), count, missing)

    def blocks(self, builder: Builder, rows: ir.Value, unit: ir.Value, sizes: Sequence[int]) -> ir.Value:
        """[time, batch, *sizes] as [blocks, steps, batch, *sizes], with ``unit`` in steps that are none."""
        count = len(sizes) + 2
        pads = builder.op(
            "Concat", builder.constant([0] * count), self.missing, builder.constant([0] * (count - 1)), axis=0
        )
        shape = builder.op(
            "Concat", self.count, builder.constant([_STEPS]), self.batch, builder.constant(list(sizes)), axis=0
        )
        return builder.op("Reshape", builder.op("Pad", rows, pads, unit), shape)

    def joined(self, builder: Builder, value: ir.Value, sizes: Sequence[int]) -> ir.Value:
        """[blocks, 1 + steps, batch, *sizes] as [time, batch, *sizes]."""
        shape = builder.op("Concat", builder.constant([-1]), self.batch, builder.constant(list(sizes)), axis=0)
        steps = builder.op("Slice", value, *map(builder.constant, ([1], [1 + _STEPS], [1])))
        rows = builder.op("Reshape", steps, shape)
        return builder.op("Slice", rows, builder.constant([0]), self.time, builder.constant([0]))


def _step(builder: Builder, line: Line, state: ir.Value, new: Mapping[ir.Value, ir.Value]) -> ir.Value:
    kept = state if line.a is None else builder.op(line.ring.times, state, new[line.a])
    return builder.op(line.ring.plus, kept, new[line.b])


def _as_wide(builder: Builder, valid: ir.Value, rank: int) -> ir.Value:
    """[time, batch, 1] with as many axes as a step of ``rank`` axes has over time."""
    return valid if rank == 2 else builder.op("Unsqueeze", valid, builder.constant(list(range(3, rank + 1))))


def _type(value: ir.Value) -> ir.DataType:
    assert value.dtype is not None
    return value.dtype


def _constant(builder: Builder, value: float, like: ir.Value) -> ir.Value:
    return builder.constant(value, _type(like).numpy())
