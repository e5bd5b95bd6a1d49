"""A loop cut into several, one after the other, where some of its states do not depend on the others (loop fission).

The exponents of an mLSTM or of RWKV follow from themselves alone, and so does the first of two layers that somebody wrote
into one loop.  Their loop can run first, over all steps.  Then what the others compute from them needs no loop any more:
it is done once for all steps, and a step of the second loop keeps what it must.  A node in a loop costs onnxruntime half a
microsecond at every step: one row of an mLSTM with two heads of 16 takes 6.2 us a step in place of 13.3, with its loops
written as ``Scan``, which needs no node to look up what it reads (9.6 as ``Loop``; onnxruntime 1.32, one thread, AVX-512).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from rnncore.cells import Cell
from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.lowering.all_steps import AllSteps
from rnncore.export.lowering.fission_cut import Cut, Stage, Stages, row_spec
from rnncore.export.lowering.loops import loop
from rnncore.export.lowering.memories import Memories
from rnncore.export.lowering.memory_chunks import MemoryChunks
from rnncore.export.lowering.recurrence import Recurrence
from rnncore.export.lowering.steps import StepGraph
from rnncore.export.tracing.rolling.cell import RolledCell

Run = Callable[[Builder, Recurrence, ir.Value], list[ir.Value]]

_ROWS = 3


def stages_of(rec: Recurrence) -> Stages | None:
    """How the step of ``rec`` can be cut; None if it cannot, or if nothing is gained."""
    step = rec.step
    if step is None or rec.captured or not rec.states or not rec.lean or None in map(row_spec, step.inputs):
        return None
    # Layers keep to one form of loop: other programs than onnxruntime run one of them only.
    stages = Cut(step, len(rec.states), together=isinstance(rec.cell, RolledCell)).stages()
    if stages is None:
        return None
    dtype = torch.from_numpy(np.zeros(0, rec.dtype.numpy())).dtype
    return stages if _rows_are_apart(rec.cell, step, dtype) else None


def _rows_are_apart(cell: Cell, step: StepGraph, dtype: torch.dtype) -> bool:
    """Whether a step answers every row as if it were alone: steps can then stand for rows.  Asked about random numbers."""
    generator = torch.Generator().manual_seed(0)
    specs = [row_spec(value) for value in step.inputs]
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

    What is read along is [batch, time, z size].
    """
    assert rec.step is not None
    values = AllSteps(builder, rec.step, rec.weights, *rec.along)
    valid = None if rec.valid is None else builder.op("Transpose", rec.valid, perm=[1, 0, 2])
    finals: dict[int, ir.Value] = {}
    for stage in stages.loops:
        values.write(stage.before)
        along = [values.over_time(value) for value in stage.step.inputs[: stage.step.reads]]
        starts = [rec.states[i] for i in stage.states]
        own = replace(rec, step=stage.step, states=starts, along=along, read=stage.read, carried=stage.states)
        own = replace(own, valid=valid, time_axis=0)
        found = _over_steps(builder, own, time, stage, run)
        finals.update(zip(stage.states, found[len(stage.results) :], strict=True))
        state_of = dict(zip(stage.step.outputs[len(stage.results) :], stage.states, strict=True))
        for value, after in zip(stage.results, found, strict=False):
            values.put(value, after)
            if (i := state_of.get(value)) is not None:
                values.put(rec.step.inputs[1 + i], _one_later(builder, rec.states[i], after, reverse=rec.reverse))
    values.write(stages.after)
    y = builder.op("Transpose", values.over_time(stages.y), perm=[1, 0, 2])
    return [y, *(finals[i] for i in range(len(rec.states)))]


def _over_steps(builder: Builder, own: Recurrence, time: ir.Value, stage: Stage, run: Run) -> list[ir.Value]:
    """[*results [time, batch, ...], *final states [batch, ...]] of one stage."""
    if stage.window is not None and own.valid is None and not own.reverse:
        (start,), (new,) = own.states, own.along
        return stage.window.over_time(builder, start, new, len(dims_of(stage.step.inputs[-1])))
    reads = bool(own.along) or own.valid is not None
    run = run if reads else loop  # a Scan has to read something
    if stage.linear is None or own.reverse:
        return run(builder, own, time)
    together, steps = builder.nested(), builder.nested()
    if isinstance(stage.linear, Memories):
        chunks = MemoryChunks(builder, stage.linear, own, time)
        fit, found = chunks.fit, chunks.write(together)
    else:
        fit, found = stage.linear.fit(builder, own, time), stage.linear.write(together, own, time)
    graphs = together.subgraph([], found, "together"), steps.subgraph([], run(steps, own, time), "steps")
    return builder.ops("If", [fit], len(found), then_branch=graphs[0], else_branch=graphs[1])


def _one_later(builder: Builder, start: ir.Value, after: ir.Value, *, reverse: bool) -> ir.Value:
    """The states before each step: ``after`` [time, batch, ...] holds those behind it."""
    first = builder.op("Unsqueeze", start, builder.constant([0]))
    both = (after, first) if reverse else (first, after)
    first_step, end = ([1], [2**63 - 1]) if reverse else ([0], [-1])
    return builder.op("Slice", builder.op("Concat", *both, axis=0), *map(builder.constant, (first_step, end, [0])))
