"""Between the runtime and a graph that rnncore did not write.

Inside the runtime every array is [batch, time, ...] and every state [batch, size].  A foreign graph may have its axes
in another order, no batch axis at all, a batch of one only, constant inputs, or take one chunk of fixed size a call.
All of this is settled here, at the two ends of a call; nothing else in the runtime knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.format.axes import BATCH, TIME, base_of, known_size

Array = NDArray[Any]
Run = Callable[[list[str], dict[str, Array]], dict[str, Array]]
"""Runs a graph: names of outputs, arrays by name of input; returns arrays by name of output."""


@dataclass(frozen=True, slots=True)
class GraphPort:
    """How one array lies in the graph.

    dims: a number for a fixed size, ``"batch"`` and ``"time"`` for those axes where their size is free, another name
        for one that may have any size.
    batch: position of the batch axis, None when there is none.
    time: position of the axis that time runs along, None when there is none.  Its size may be fixed, to one chunk.
    """

    name: str
    dims: tuple[int | str, ...]
    batch: int | None
    time: int | None = None

    def to_graph(self, rows: Array) -> Array:
        """[batch, time, ...], or [batch, ...] without a time axis, as the graph wants it; no copy if it can be helped."""
        items = rows[0] if self.batch is None else rows
        return np.ascontiguousarray(items if self._ordered else items.transpose(self._order))

    def from_graph(self, value: Array) -> Array:
        """Inverse of :meth:`to_graph`, as a view."""
        items = value if self._ordered else value.transpose(np.argsort(self._order))
        return items[None] if self.batch is None else items

    @property
    def _order(self) -> list[int]:
        """For each axis of the graph the one that it is in [batch, time, ...]."""
        first = [axis for axis in (self.batch, self.time) if axis is not None]
        rest = [axis for axis in range(len(self.dims)) if axis not in first]
        places = {axis: place for place, axis in enumerate([*first, *rest])}
        return [places[axis] for axis in range(len(self.dims))]

    @property
    def _ordered(self) -> bool:
        """True when batch and time come first in the graph too."""
        return (self.batch, self.time) in ((None, None), (None, 0), (0, None), (0, 1))

    def shape_of_one(self, steps: int) -> tuple[int, ...]:
        """Shape in the graph for a batch of one; for a port that :attr:`plain` is true of, a view can have it."""
        sizes = {BATCH: 1, TIME: steps}
        return tuple(known_size(d, sizes) for d in self.dims)

    @property
    def plain(self) -> bool:
        """True when a batch of one is only reshaped, not rearranged, and its size is known before a run."""
        before = self.dims[: self.time] if self.time is not None else ()
        others = [d for axis, d in enumerate(before) if axis != self.batch]
        return all(d == 1 for d in others) and all(isinstance(d, int) or base_of(d) in (BATCH, TIME) for d in self.dims)


@dataclass(frozen=True, slots=True)
class GraphState:
    """A state in the graph: ``port`` is the input, ``output`` the name of what it becomes."""

    port: GraphPort
    output: str
    item_shape: tuple[int, ...]

    def to_graph(self, value: Array) -> Array:
        """[batch, size] as the graph wants it."""
        return self.port.to_graph(value.reshape(len(value), *self.item_shape))

    def from_graph(self, value: Array) -> Array:
        """The graph's answer as [batch, size]."""
        rows = self.port.from_graph(value)
        return rows.reshape(len(rows), -1)


@dataclass(frozen=True, slots=True)
class Context:
    """The last ``size`` samples of an input, which the graph wants to see again before each chunk.

    state: name of the state of the runtime that keeps them.
    """

    input: str
    state: str
    size: int


@dataclass(frozen=True, slots=True)
class GraphAdapter:
    """All that is foreign about a model.

    timed: names of the inputs that bring something new at each step.
    chunks: samples of one step of each input of which a step is a chunk of fixed size.
    chunked: one call is one step, and a step of an input may be a chunk of several samples.
    alone: one call serves one sequence.
    """

    inputs: tuple[GraphPort, ...]
    outputs: tuple[GraphPort, ...]
    states: tuple[GraphState, ...]
    contexts: tuple[Context, ...]
    constants: Mapping[str, Array]
    timed: frozenset[str]
    chunks: Mapping[str, int]
    chunked: bool
    alone: bool

    def call(
        self, run: Run, arrays: Mapping[str, Array], states: Mapping[str, Array], batch: int, steps: int
    ) -> dict[str, Array]:
        """Run whole arrays [batch, time, ...] from ``states`` [batch, size] by name; returns outputs and final states."""
        if not self.alone or batch == 1:
            return self._call_together(run, arrays, states, steps)
        parts = [
            self._call_together(run, _row(arrays, row), _row(states, row), steps)  # each as a batch of one
            for row in range(batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def binds(self, steps: int) -> bool:
        """True when buffers of known shape can be bound for a sequence of so many steps."""
        if self.chunked and steps != 1:
            return False
        return all(port.plain for port in (*self.inputs, *self.outputs))

    def bound(self, arrays: Mapping[str, Array], steps: int) -> dict[str, Array]:
        """Views of the buffers of a batch of one, inputs or outputs by name, in the shapes that the graph has for them."""
        ports = {port.name: port for port in (*self.inputs, *self.outputs)}
        return {name: array.reshape(ports[name].shape_of_one(steps)) for name, array in arrays.items()}

    def bound_states(self, arrays: Sequence[Array]) -> list[Array]:
        """Views of state buffers [1, size] in the shapes that the graph has for them."""
        graph = arrays[: len(self.states)]  # contexts come after them
        return [array.reshape(state.port.shape_of_one(1)) for state, array in zip(self.states, graph, strict=True)]

    def with_context(self, name: str, array: Array) -> Array:
        """A buffer of input ``name`` with room for its context before the chunk: from [1, 1, chunk, ...] or the like."""
        size = next((context.size for context in self.contexts if context.input == name), 0)
        if name not in self.chunks:
            return array
        return np.zeros((1, size + self.chunks[name], *array.shape[3:]), array.dtype)

    def _call_together(
        self, run: Run, arrays: Mapping[str, Array], states: Mapping[str, Array], steps: int
    ) -> dict[str, Array]:
        if not self.chunked:
            return self._call_once(run, arrays, states)
        now = dict(states)
        columns: dict[str, list[Array]] = {port.name: [] for port in self.outputs}
        finals: dict[str, Array] = {}
        for t in range(steps):
            step = {name: array[:, t] if name in self.timed else array for name, array in arrays.items()}
            self._add_context(step, now, finals)
            values = self._call_once(run, step, now)
            for port in self.outputs:
                columns[port.name].append(values[port.name])
            for state in self.states:
                now[state.port.name] = finals[state.output] = values[state.output]
        return {name: np.stack(column, axis=1) for name, column in columns.items()} | finals

    def _add_context(self, step: dict[str, Array], now: dict[str, Array], finals: dict[str, Array]) -> None:
        for context in self.contexts:
            chunk = step[context.input]
            before = now.pop(context.state).reshape(len(chunk), context.size, *chunk.shape[2:])
            whole = step[context.input] = np.concatenate([before, chunk], axis=1)
            after = whole[:, -context.size :].reshape(len(chunk), -1)
            now[context.state] = finals[context.state] = after

    def _call_once(self, run: Run, arrays: Mapping[str, Array], states: Mapping[str, Array]) -> dict[str, Array]:
        feeds = dict(self.constants)
        for port in self.inputs:
            rows = arrays[port.name]
            # A step of a chunked model has no time axis of its own; the graph may want one of size 1.
            missing = self.chunked and port.time is not None and rows.ndim < len(port.dims) + (port.batch is None)
            feeds[port.name] = port.to_graph(rows[:, None] if missing else rows)
        for state in self.states:
            feeds[state.port.name] = state.to_graph(states[state.port.name])
        values = run([port.name for port in self.outputs] + [state.output for state in self.states], feeds)
        answers = {}
        for port in self.outputs:
            rows = port.from_graph(values[port.name])
            answers[port.name] = rows[:, 0] if self.chunked and port.time is not None else rows
        for state in self.states:
            answers[state.output] = state.from_graph(values[state.output])
        return answers


def _row(arrays: Mapping[str, Array], row: int) -> dict[str, Array]:
    return {name: array[row : row + 1] for name, array in arrays.items()}
