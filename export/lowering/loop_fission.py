"""A loop cut into several, one after the other, where some of its states do not depend on the others (loop fission).

The exponents of an mLSTM or of RWKV follow from themselves alone, and so does the first of two layers that somebody wrote
into one loop.  Their loop can run first, over all steps.  Then what the others compute from them needs no loop any more:
it is done once for all steps, and a step of the second loop keeps what it must.  A node in a loop costs onnxruntime half a
microsecond at every step: one row of an mLSTM with two heads of 16 takes 6.2 us a step in place of 13.3, with its loops
written as ``Scan``, which needs no node to look up what it reads (9.6 as ``Loop``; onnxruntime 1.32, one thread, AVX-512).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from rnncore.cells import Cell
from rnncore.export.graph.builder import Builder
from rnncore.export.lowering.loops import loop
from rnncore.export.lowering.recurrence import Recurrence, RowSpec
from rnncore.export.lowering.steps import StepGraph

Run = Callable[[Builder, Recurrence, ir.Value], list[ir.Value]]

_LOOP_COST = 2
"""What one more loop costs at every step, in nodes."""
_GROWTH = 2
"""So many times what a step reads and gives may be kept of every step."""
_WIDE = 1024
"""What has more numbers for a row than this, and more than what it is made of, is made where it is used: to keep it for
every step would cost more than its node."""
_ROWS = 3


@dataclass
class Stage:
    """One of the loops.

    step: what stays in it.  states: which states it carries.  read: dtype and shape of what it reads, for one row.
    before: the nodes that make what it reads, done for all steps together.
    kept: which of the states others need, after every step or before it; these are its results.
    """

    step: StepGraph
    states: list[int]
    read: list[RowSpec]
    before: list[ir.Node]
    kept: list[int]


@dataclass
class Stages:
    """The loops in order, and the nodes that make ``y`` of what all of them give."""

    loops: list[Stage]
    after: list[ir.Node]
    y: ir.Value


def stages_of(rec: Recurrence) -> Stages | None:
    """How the step of ``rec`` can be cut; None if it cannot, or if nothing is gained."""
    step = rec.step
    if step is None or rec.captured or len(rec.states) < 2 or not rec.lean or None in map(_row_spec, step.inputs):
        return None
    stages = _Cut(step, len(rec.states)).stages()
    if stages is None:
        return None
    dtype = torch.from_numpy(np.zeros(0, rec.dtype.numpy())).dtype
    return stages if _rows_are_apart(rec.cell, step, dtype) else None


class _Cut:
    """A step graph, cut by which states follow from which."""

    def __init__(self, step: StepGraph, count: int) -> None:
        self._step = step
        self._z, *self._states = step.inputs
        self._count = count
        self._maker = {value: node for node in step.nodes for value in node.outputs}
        self._y, *self._next = self._as_made(step.outputs)
        self._follows = self._states_behind()

    def stages(self) -> Stages | None:
        """None if there is one loop only, or nothing is gained, or a size is unknown."""
        levels = self._levels()
        if len(set(levels)) < 2:
            return None
        known = {self._z}
        loops: list[Stage] = []
        for level in sorted(set(levels)):
            own = [i for i, at in enumerate(levels) if at == level]
            told = [self._next[i] for i in own]
            core = self._needed(told, known)
            inside = {node for node in core if not self._follows[node.outputs[0]].isdisjoint(own)}
            inside = self._with_wide(inside, told, own)
            read = self._read_by(inside, told, own)
            specs = [_row_spec(value) for value in read]
            if None in specs or any(_row_spec(value) is None for value in told) or not self._are_rows([*read, *told]):
                return None
            before = self._needed(read, known)
            step = StepGraph(
                self._step.owner,
                [*read, *(self._states[i] for i in own)],
                told,
                self._step.hoisted,
                [node for node in self._step.nodes if node in inside],
                len(read),
            )
            loops.append(Stage(step, own, [spec for spec in specs if spec is not None], before, []))
            known |= {*told, *(self._states[i] for i in own)}.union(*(node.outputs for node in before))
        stages = Stages(loops, self._needed([self._y], known), self._y)
        self._keep_what_is_needed(stages)
        return stages if self._pays(stages) else None

    def _are_rows(self, values: Sequence[ir.Value]) -> bool:
        """Whether each has one entry for a row, not several, such as one for each head."""
        rows = {str(value.shape.dims[0]) for value in (self._z, *values) if value.shape is not None}
        return len(rows) == 1

    def _keep_what_is_needed(self, stages: Stages) -> None:
        outside = [node for nodes in (*(stage.before for stage in stages.loops), stages.after) for node in nodes]
        used = {value for node in outside for value in node.inputs} | {stages.y}
        used |= {value for stage in stages.loops for value in stage.step.inputs[: stage.step.reads]}
        for stage in stages.loops:
            stage.kept = [i for i in stage.states if self._next[i] in used or self._states[i] in used]
            stage.step.outputs = [*(self._next[i] for i in stage.kept), *stage.step.outputs]

    def _as_made(self, outputs: Sequence[ir.Value]) -> list[ir.Value]:
        """The outputs without the identities that tell them from each other."""
        found: list[ir.Value] = []
        for value in outputs:
            node = self._maker.get(value)
            source = node.inputs[0] if node is not None and node.op_type == "Identity" else None
            apart = source is not None and source in self._maker and source not in (*outputs[1:], *found[1:])
            found.append(source if apart and source is not None else value)
        return found

    def _states_behind(self) -> dict[ir.Value, frozenset[int]]:
        """The states from which each value follows within a step."""
        behind = {value: frozenset([i]) for i, value in enumerate(self._states)}
        for node in self._step.nodes:
            found = frozenset[int]().union(*(behind.get(v, frozenset()) for v in node.inputs if v is not None))
            behind.update(dict.fromkeys(node.outputs, found))
        return behind

    def _levels(self) -> list[int]:
        """For each state how many loops must be over before the one that carries it."""
        reach = [set(self._follows.get(value, frozenset())) | {i} for i, value in enumerate(self._next)]
        for k in range(self._count):
            for i in range(self._count):
                if k in reach[i]:
                    reach[i] |= reach[k]
        together = [frozenset(j for j in reach[i] if i in reach[j]) for i in range(self._count)]
        levels = [0] * self._count
        for i in sorted(range(self._count), key=lambda i: len(reach[i])):  # whoever follows from less comes first
            levels[i] = max((levels[j] + 1 for j in reach[i] - together[i]), default=0)
        return [max(levels[j] for j in together[i]) for i in range(self._count)]

    def _needed(self, wanted: Sequence[ir.Value], known: set[ir.Value]) -> list[ir.Node]:
        """The nodes that lead from ``known`` values to ``wanted``, in order."""
        found: set[ir.Node] = set()
        todo = [value for value in wanted if value not in known]
        while todo:
            node = self._maker.get(todo.pop())
            if node is not None and node not in found:
                found.add(node)
                todo.extend(value for value in node.inputs if value is not None and value not in known)
        return [node for node in self._step.nodes if node in found]

    def _with_wide(self, inside: set[ir.Node], told: Sequence[ir.Value], own: Sequence[int]) -> set[ir.Node]:
        """The nodes of a loop, with those that spread what they are given to more numbers than are to be kept."""
        while True:
            spreading = {
                self._maker[v] for v in self._read_by(inside, told, own) if v in self._maker and self._is_wide(v)
            }
            if not spreading:
                return inside
            inside = inside | spreading

    def _is_wide(self, value: ir.Value) -> bool:
        given = [v for v in self._maker[value].inputs if v is not None and (v in self._maker or v in self._step.inputs)]
        return _WIDE < self._numbers(value) > sum(map(self._numbers, given))

    def _numbers(self, value: ir.Value) -> int:
        spec = _row_spec(value)
        return 0 if spec is None else prod(spec[1])

    def _read_by(self, inside: set[ir.Node], told: Sequence[ir.Value], own: Sequence[int]) -> list[ir.Value]:
        """What a loop of these nodes takes from outside, weights apart."""
        nodes = [node for node in self._step.nodes if node in inside]
        made = {value for node in nodes for value in node.outputs} | {self._states[i] for i in own}
        taken = dict.fromkeys([*(value for node in nodes for value in node.inputs if value is not None), *told])
        return [v for v in taken if v not in made and (v in self._maker or v is self._z or v in self._states)]

    def _pays(self, stages: Stages) -> bool:
        """Whether a step has fewer nodes to run, and what is kept of every step does not outgrow what goes in and out."""
        cost = sum(_cost(stage.step.nodes) + len(stage.kept) for stage in stages.loops)
        kept = [v for stage in stages.loops for v in stage.step.inputs[: stage.step.reads]]
        kept += [self._next[i] for stage in stages.loops for i in stage.kept]
        room = _GROWTH * (self._numbers(self._z) + self._numbers(self._y))
        cheap = cost + _LOOP_COST * (len(stages.loops) - 1) < _cost(self._step.nodes) + 2
        return cheap and sum(map(self._numbers, kept)) <= room


def _cost(nodes: Sequence[ir.Node]) -> int:
    """In nodes; a product is two."""
    return sum(1 + (node.op_type in ("MatMul", "Gemm")) for node in nodes if node.op_type != "Identity")


def _row_spec(value: ir.Value) -> RowSpec | None:
    """Dtype and shape for one row; None where a size is unknown or free."""
    shape = value.shape
    if shape is None or value.dtype is None or len(shape) < 1:
        return None
    sizes = tuple(size for size in shape.dims[1:] if isinstance(size, int))
    return (value.dtype, sizes) if len(sizes) == len(shape) - 1 else None


def _rows_are_apart(cell: Cell, step: StepGraph, dtype: torch.dtype) -> bool:
    """Whether a step answers every row as if it were alone: steps can then stand for rows.  Asked about random numbers."""
    generator = torch.Generator().manual_seed(0)
    specs = [_row_spec(value) for value in step.inputs]
    told = False
    with torch.no_grad():
        for draw in (torch.rand, torch.randn):
            z, *states = (draw([_ROWS, *spec[1]], generator=generator).to(dtype) for spec in specs if spec is not None)
            together = cell.step(z, *states)
            told = told or all(bool(value.isfinite().all()) for value in together)
            for row in range(_ROWS):
                alone = cell.step(z[row : row + 1], *(state[row : row + 1] for state in states))
                if not all(map(_alike, alone, (value[row : row + 1] for value in together))):
                    return False
    return told


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)


def emit_stages(builder: Builder, rec: Recurrence, time: ir.Value, *, stages: Stages, run: Run) -> list[ir.Value]:
    """The recurrence as several loops, each written by ``run``: [y [batch, time, size], *final states].

    What is read along is [time, batch, z size].
    """
    assert rec.step is not None
    (z,) = rec.along
    axes = builder.op("Shape", z, start=0, end=2)
    known = {**rec.weights, rec.step.inputs[0]: _as_rows(builder, z, rec.read[0][1])}
    finals: dict[int, ir.Value] = {}
    for stage in stages.loops:
        rec.step.write(stage.before, builder, known)
        along = [
            _over_time(builder, known[value], axes, shape)
            for value, (_, shape) in zip(stage.step.inputs, stage.read, strict=False)
        ]
        starts = [rec.states[i] for i in stage.states]
        own = replace(rec, step=stage.step, states=starts, along=along, read=stage.read, carried=stage.states)
        reads = bool(along) or rec.valid is not None
        found = (run if reads else loop)(builder, own, time)  # a Scan has to read something
        finals.update(zip(stage.states, found[len(stage.kept) :], strict=True))
        for i, value, after in zip(stage.kept, stage.step.outputs, found, strict=False):
            shape = tuple(int(size) for size in value.shape.dims[1:])  # type: ignore[union-attr, arg-type]
            before = _one_later(builder, rec.states[i], after, reverse=rec.reverse)
            known[value] = _as_rows(builder, after, shape)
            known[rec.step.inputs[1 + i]] = _as_rows(builder, before, shape)
    rec.step.write(stages.after, builder, known)
    y = _over_time(builder, rec.step.found(stages.y, builder, known), axes, (rec.cell.output_size,))
    return [builder.op("Transpose", y, perm=[1, 0, 2]), *(finals[i] for i in range(len(rec.states)))]


def _as_rows(builder: Builder, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """[time, batch, ...] as [time * batch, ...]: every step of a row stands for a row."""
    return builder.op("Reshape", value, builder.constant([-1, *shape]))


def _over_time(builder: Builder, rows: ir.Value, axes: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """The inverse of :func:`_as_rows`."""
    return builder.op("Reshape", rows, builder.op("Concat", axes, builder.constant(list(shape)), axis=0))


def _one_later(builder: Builder, start: ir.Value, after: ir.Value, *, reverse: bool) -> ir.Value:
    """The states before each step: ``after`` [time, batch, ...] holds those behind it."""
    first = builder.op("Unsqueeze", start, builder.constant([0]))
    both = (after, first) if reverse else (first, after)
    first_step, end = ([1], [2**63 - 1]) if reverse else ([0], [-1])
    return builder.op("Slice", builder.op("Concat", *both, axis=0), *map(builder.constant, (first_step, end, [0])))
