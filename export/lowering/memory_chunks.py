"""Memories in chunks, as ONNX, see :mod:`rnncore.export.lowering.memories`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.views import VIEWS
from rnncore.export.lowering.memories import Memories, Memory, Reading
from rnncore.export.lowering.recurrence import Recurrence

_CHUNK = 32
"""Steps of a chunk: a step does as much work for the steps of its chunk as it has, and for the memory once."""
_FEWEST, _FEWEST_UNFACTORED = 16, 32
"""Steps from which on chunks are faster than one loop; with a memory that is written to by no product."""
_FORGOTTEN = -1e4
"""A logarithm that stands for that of zero: nothing is left of what came before, and differences keep their digits."""
_ORDINARY = 1e30
"""Of numbers that add up to less none is infinite or NaN, which products of whole chunks would give to earlier steps."""
_DOUBLE, _FLOAT, _FLOAT32 = int(ir.DataType.DOUBLE), int(ir.DataType.FLOAT), np.dtype(np.float32)


class MemoryChunks:
    """Writes ``memories`` over [time, batch, ...]; ``fit``: whether chunks are right and faster, [1]."""

    def __init__(self, builder: Builder, memories: Memories, rec: Recurrence, time: ir.Value) -> None:
        self._memories, self._rec, self._time = memories, rec, time
        self._axes = builder.op("Shape", rec.along[0], start=0, end=2)
        self._rows = self._over_rows(builder)
        self.fit = self._fits(builder)

    def _over_rows(self, builder: Builder) -> dict[ir.Value, ir.Value]:
        """What memories and readings are made of, [time * batch, ...], weights as they are."""
        step, wanted = self._memories.step, self._memories.wanted
        known = dict(self._rec.weights)
        for value, along, (_, shape) in zip(step.inputs, self._rec.along, self._rec.read, strict=False):
            known[value] = builder.op("Reshape", along, builder.constant([-1, *shape]))
        maker = {value: node for node in step.nodes for value in node.outputs}
        needed, todo = set[ir.Node](), list(wanted)
        while todo:
            node = maker.get(todo.pop())
            if node is not None and node not in needed:
                needed.add(node)
                todo.extend(value for value in node.inputs if value is not None)
        step.write([node for node in step.nodes if node in needed], builder, known)
        return {value: step.found(value, builder, known) for value in wanted}

    def _fits(self, builder: Builder) -> ir.Value:
        unfactored = any(memory.unfactored for memory in self._memories.memories)
        fewest = _FEWEST_UNFACTORED if unfactored else _FEWEST
        fits = builder.op("GreaterOrEqual", self._time, builder.constant([fewest]))
        factors = dict.fromkeys(memory.a for memory in self._memories.memories if memory.a is not None)
        for a in factors:
            least = builder.op("ReduceMin", self._rows[a], keepdims=0)
            fits = builder.op("And", fits, builder.op("GreaterOrEqual", least, builder.constant(0.0, _FLOAT32)))
        sums = [builder.op("ReduceL1", rows, keepdims=0) for rows in self._rows.values()]
        total = builder.op("Sum", *sums) if len(sums) > 1 else sums[0]
        return builder.op("And", fits, builder.op("Less", total, builder.constant(_ORDINARY, _FLOAT32)))

    def write(self, builder: Builder) -> list[ir.Value]:
        """[*results [time, batch, ...], *final states [batch, ...]]."""
        layout = _Layout.of(builder, self._axes, self._time, self._rec.valid)
        written: list[_Written] = []
        factors: dict[tuple[ir.Value | None, int], _Factors] = {}
        for memory, start in zip(self._memories.memories, self._rec.states, strict=True):
            key = _source(memory.a), prod(memory.heads)
            if key not in factors:
                factors[key] = _Factors.of(builder, layout, None if memory.a is None else self._rows[memory.a], memory)
            rows, columns = (self._product(builder, layout, memory, *own) for own in _parts(memory))
            assert rows is not None  # there is a term
            written.append(_Written(memory, factors[key], rows, columns, start))
        states = _from_chunk_to_chunk(builder, written)
        results = [
            self._read(builder, layout, written[reading.number], states[reading.number][1], reading, value)
            for reading, value in zip(self._memories.readings, self._memories.step.outputs, strict=False)
        ]
        return [*results, *(final for final, _ in states)]

    def _product(
        self, builder: Builder, layout: _Layout, memory: Memory, values: Sequence[ir.Value], width: int
    ) -> ir.Value | None:
        """The product of ``values`` [batch, *heads, ...] of so many numbers, or of 1, as [chunks, batch, heads, steps, width]."""
        found = None
        for value in values:
            numbers = 1 if value in memory.scales else width
            part = layout.chunks(builder, self._rows[value], value, memory, numbers)
            found = part if found is None else builder.op("Mul", found, part)
        return found

    def _read(
        self,
        builder: Builder,
        layout: _Layout,
        written: _Written,
        before: ir.Value,
        reading: Reading,
        value: ir.Value,
    ) -> ir.Value:
        memory, factors = written.memory, written.factors
        if reading.query is None:
            near = builder.op("MatMul", factors.between, written.rows)
            far = builder.op("Mul", factors.since_start, before)
        else:
            size = memory.inner[0] if reading.by_rows else memory.inner[1]
            query = layout.chunks(builder, self._rows[reading.query], reading.query, memory, size)
            own, other = (written.rows, written.columns) if reading.by_rows else (written.columns, written.rows)
            assert own is not None and other is not None
            alike = builder.op("MatMul", query, builder.op("Transpose", own, perm=[0, 1, 2, 4, 3]))
            near = builder.op("MatMul", builder.op("Mul", alike, factors.between), other)
            turned = before if reading.by_rows else builder.op("Transpose", before, perm=[0, 1, 2, 4, 3])
            far = builder.op("Mul", factors.since_start, builder.op("MatMul", query, turned))
        shape = [size for size in dims_of(value)[1:] if isinstance(size, int)]
        return layout.joined(builder, builder.op("Add", near, far), shape)


@dataclass(frozen=True)
class _Layout:
    """[time, batch, ...] as [chunks, batch, heads, steps, numbers].

    count, missing, time: chunks, steps that the last one has too many, and steps, [1].  valid: [time, batch, 1, 1] or None.
    """

    count: ir.Value
    missing: ir.Value
    time: ir.Value
    axes: ir.Value
    batch: ir.Value
    valid: ir.Value | None

    @classmethod
    def of(cls, builder: Builder, axes: ir.Value, time: ir.Value, valid: ir.Value | None) -> _Layout:
        """For ``axes`` [time, batch]."""
        chunk = builder.constant([_CHUNK])
        whole = builder.op("Add", time, builder.constant([_CHUNK - 1]))
        count = builder.op("Div", whole, chunk)
        missing = builder.op("Sub", builder.op("Mul", count, chunk), time)
        batch = builder.op("Slice", axes, *map(builder.constant, ([1], [2], [0])))
        wide = None if valid is None else builder.op("Unsqueeze", valid, builder.constant([3]))
        return cls(count, missing, time, axes, batch, wide)

    def chunks(
        self, builder: Builder, rows: ir.Value, value: ir.Value, memory: Memory, numbers: int, unit: float = 0.0
    ) -> ir.Value:
        """``rows`` of ``value`` [time * batch, *heads, ...], so many numbers for each, and ``unit`` in steps that are none.

        What is the same for several rows or heads is spread over them.
        """
        rank = 1 + len(memory.heads) + len(memory.inner)
        dims = [*[1] * rank, *dims_of(value)][-rank:]
        if dims[0] == 1 or dims[1 : len(memory.heads) + 1] != list(memory.heads):
            target = builder.constant([*memory.heads, *[1] * len(memory.inner)])
            rows = builder.op("Expand", rows, builder.op("Concat", builder.op("ReduceProd", self.axes), target, axis=0))
        sizes = [prod(memory.heads), numbers]
        one = builder.constant(unit, _FLOAT32)
        steps = builder.op("Reshape", rows, builder.op("Concat", self.axes, builder.constant(sizes), axis=0))
        if self.valid is not None:
            steps = builder.op("Where", self.valid, steps, one)
        pads = builder.op("Concat", builder.constant([0] * 4), self.missing, builder.constant([0] * 3), axis=0)
        shape = builder.op(
            "Concat", self.count, builder.constant([_CHUNK]), self.batch, builder.constant(sizes), axis=0
        )
        cut = builder.op("Reshape", builder.op("Pad", steps, pads, one), shape)
        return builder.op("Transpose", cut, perm=[0, 2, 3, 1, 4])

    def joined(self, builder: Builder, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """The inverse, in this ``shape`` of a row."""
        back = builder.op("Transpose", value, perm=[0, 3, 1, 2, 4])
        target = builder.op("Concat", builder.constant([-1]), self.batch, builder.constant(list(shape)), axis=0)
        steps = builder.op("Reshape", back, target)
        return builder.op("Slice", steps, builder.constant([0]), self.time, builder.constant([0]))


@dataclass(frozen=True)
class _Factors:
    """What is left of what was written or kept, [chunks, batch, heads, ...].

    between: at each step of what each step wrote, [.., steps, steps].  since_start: at each step of what the chunk began with,
    [.., steps, 1].  until_end: at the end of what each step wrote, [.., steps, 1].  whole: at the end of what it began with.
    """

    between: ir.Value
    since_start: ir.Value
    until_end: ir.Value
    whole: ir.Value

    @classmethod
    def of(cls, builder: Builder, layout: _Layout, a: ir.Value | None, memory: Memory) -> _Factors:
        """Of the factor ``a`` of each step, by running sums of its logarithms."""
        one = builder.constant(1.0, _FLOAT32)
        steps = layout.chunks(
            builder, one if a is None else a, one if memory.a is None else memory.a, memory, 1, unit=1.0
        )
        logs = builder.op("Log", builder.op("Cast", steps, to=_DOUBLE))
        logs = builder.op("Max", logs, builder.constant(_FORGOTTEN, np.float64))
        sums = builder.op("CumSum", logs, builder.constant(3))
        earlier = builder.op("Transpose", sums, perm=[0, 1, 2, 4, 3])
        last = builder.op("Slice", sums, *map(builder.constant, ([-1], [2**63 - 1], [3])))
        near = np.tri(_CHUNK, dtype=bool)
        between = builder.op(
            "Where",
            builder.constant(near, bool),
            builder.op("Cast", builder.op("Sub", sums, earlier), to=_FLOAT),
            builder.constant(-inf, _FLOAT32),
        )
        exp = [between] + [builder.op("Cast", v, to=_FLOAT) for v in (sums, builder.op("Sub", last, sums), last)]
        return cls(*(builder.op("Exp", value) for value in exp))


@dataclass(frozen=True)
class _Written:
    """What the steps of each chunk write to a memory: ``rows`` u and ``columns`` w, and what it begins with."""

    memory: Memory
    factors: _Factors
    rows: ir.Value
    columns: ir.Value | None
    start: ir.Value

    @property
    def shape(self) -> list[int]:
        """Of the memory of a head, a row if it is a vector."""
        return list(self.memory.inner) if self.memory.columns else [1, prod(self.memory.inner)]

    def of_chunk(self, builder: Builder) -> ir.Value:
        """What is written until the end of each chunk, [chunks, batch, heads, n, m], or [.., 1, n] of vectors."""
        left = builder.op("Mul", self.rows, self.factors.until_end)
        if self.columns is None:
            return builder.op("ReduceSum", left, builder.constant([3]), keepdims=1)
        return builder.op("MatMul", builder.op("Transpose", left, perm=[0, 1, 2, 4, 3]), self.columns)


def _from_chunk_to_chunk(builder: Builder, written: Sequence[_Written]) -> list[tuple[ir.Value, ir.Value]]:
    """For each memory (as it ends [batch, ...], as each chunk finds it [chunks, batch, heads, ...])."""
    factors = list(dict.fromkeys(one.factors.whole for one in written))
    body = builder.nested()
    starts, states, read, scanned = [], [], [], []
    for one in written:
        sizes = [prod(one.memory.heads), *one.shape]
        starts.append(builder.op("Reshape", one.start, builder.constant([-1, *sizes])))
        states.append(body.input("state", ir.DataType.FLOAT, ("batch", *sizes)))
        read.append(body.input("z", ir.DataType.FLOAT, ("batch", *sizes)))
        scanned.append(one.of_chunk(builder))
    kept = {whole: body.input("z", ir.DataType.FLOAT, ("batch", None, 1, 1)) for whole in factors}
    after = [
        body.op("Add", body.op("Mul", state, kept[one.factors.whole]), new)
        for one, state, new in zip(written, states, read, strict=True)
    ]
    before = [body.op("Identity", state) for state in states]
    graph = body.subgraph([*states, *read, *kept.values()], [*after, *before], "body")
    count = len(written)
    found = builder.ops(
        "Scan", [*starts, *scanned, *factors], 2 * count, body=graph, num_scan_inputs=count + len(factors)
    )
    return [
        (builder.op("Reshape", final, builder.constant([-1, *one.memory.heads, *one.memory.inner])), found[count + i])
        for i, (one, final) in enumerate(zip(written, found, strict=False))
    ]


def _parts(memory: Memory) -> list[tuple[list[ir.Value], int]]:
    """What u and w are the products of, and of how many numbers they are."""
    rows = [*memory.rows, *memory.scales]
    if not memory.columns:
        return [(rows, prod(memory.inner)), ([], 0)]
    return [(rows, memory.inner[0]), (memory.columns, memory.inner[1])]


def _source(a: ir.Value | None) -> ir.Value | None:
    """What ``a`` is another shape of."""
    while a is not None and (node := a.producer()) is not None and node.op_type in VIEWS:
        a = node.inputs[0]
    return a
