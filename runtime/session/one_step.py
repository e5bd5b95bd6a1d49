"""A second session of a small model, for one step of one sequence, which is all that most pushes of a stream are.

A graph that takes any sizes begins by asking how many steps there are, and goes into a branch.  Where onnxruntime knows that
there is one, it leaves out the questions, the branches and the weights of the others: a push of 64 units takes two thirds.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.format.axes import BATCH, TIME
from rnncore.runtime.format.one_step import for_one_step
from rnncore.runtime.session.failures import of_runtime
from rnncore.runtime.session.opening import Graph, open_session
from rnncore.runtime.tensors.specs import Layout, Slot

if TYPE_CHECKING:
    import onnxruntime

_MOST_BYTES = 1 << 22
"""Of a file: what a step needs of it is in memory a second time, and a step of a larger one is spent in its products."""

_TRIED_STEPS = 4


def may_have_one_step(layout: Layout, file_bytes: int) -> bool:
    """Whether a model, in a file of that size, is small, and streams steps of known shapes through a graph that rnncore wrote."""
    if file_bytes > _MOST_BYTES:
        return False
    return layout.signature.causal and not layout.waits and layout.adapter is None and layout.fixed


def open_one_step(
    layout: Layout, graph: Graph, whole: onnxruntime.InferenceSession, *, threads: int | None, arena: bool
) -> onnxruntime.InferenceSession | None:
    """The session for one step on the CPU; None where it cannot be had, or does not give the very bits of ``whole``."""
    if graph.weights or not graph.foldable:
        return None
    pick = layout.signature.pick
    outputs = [slot.name for slot in layout.outputs] + [state.output for state in layout.states]
    data = for_one_step(graph.data, layout.lengths, None if pick is None else pick.at, outputs)
    try:
        of_one = Graph(data, {}, graph.nested, graph.foldable)
        session = open_session(of_one, threads=threads, arena=arena, sizes={BATCH: 1, TIME: 1})
    except ModelFileError:
        return None
    return session if _agree(layout, whole, session, outputs) else None


def _agree(
    layout: Layout, whole: onnxruntime.InferenceSession, one: onnxruntime.InferenceSession, names: list[str]
) -> bool:
    """Whether both give the same bits in some steps of a sequence."""
    constants = _constants(layout)
    states = {state.name: state.to_graph(state.initial[None]) for state in layout.states}
    for step in range(_TRIED_STEPS):
        feeds = {slot.name: _made_up(slot, step) for slot in layout.inputs} | states
        expected, found = _answers(whole, names, feeds | constants), _answers(one, names, feeds)
        if expected is None or found is None or not all(map(_same, expected, found)):
            return False
        finals = found[len(layout.outputs) :]
        states = {state.name: final for state, final in zip(layout.states, finals, strict=True)}
    return True


def _answers(session: onnxruntime.InferenceSession, names: list[str], feeds: Mapping[str, Array]) -> list[Array] | None:
    """What a session answers, None if it cannot: the ids were none that the model takes."""
    try:
        return list(session.run(names, dict(feeds)))
    except Exception as error:
        if not of_runtime(error):
            raise
        return None


def _constants(layout: Layout) -> dict[str, Array]:
    """What the whole graph is fed for one step of one sequence beside inputs and states."""
    feeds: dict[str, Array] = {}
    if layout.lengths is not None:
        feeds[layout.lengths] = np.ones(1, np.int64)
    if layout.signature.pick is not None:
        feeds[layout.signature.pick.at] = np.zeros((1, 1, 1), np.int64)
    return feeds


def _made_up(slot: Slot, step: int) -> Array:
    """Some step of an input: ids that it takes, other whole numbers that are 0 or 1, or numbers between -1 and 1."""
    shape = slot.full_shape(1, 1)
    places = step + np.arange(prod(shape)).reshape(shape)
    if slot.dtype.kind == "f":
        return np.sin(places).astype(slot.dtype)
    low, high = slot.bounds or (0, 1)
    return (low + places % (high - low + 1)).astype(slot.dtype)


def _same(expected: Array, found: Array) -> bool:
    exact = expected.dtype.kind == "f"
    return expected.dtype == found.dtype and np.array_equal(expected, found, equal_nan=exact)
