"""States that are made for what a graph looks back at, and how far a sequence has come."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.run_overlap import PLAIN_RUNS, RunOverlap
from rnncore.export.lowering.layouts import sizes_of
from rnncore.runtime.format.axes import BATCH, TIME
from rnncore.runtime.format.signature import StateSpec

LAST = np.iinfo(np.int64).max


class ContextStates:
    """New states of a main graph, in the order in which they are made.

    runs: how the runs of a stream lie: what a state holds is what comes before the next run, not before its new steps.
    one_length: the rows of a call must have one length: one that ends within a chunk would leave its context there.
    of_chunks: first steps of a chunk, as which they are read, and not as those of the sequence.
    """

    def __init__(self, model: ir.Model, lengths: str | None = None, runs: RunOverlap = PLAIN_RUNS) -> None:
        self.model = model
        self.runs = runs
        self.lengths = next((value for value in model.graph.inputs if value.name == lengths), None)
        self.graph = model.graph
        self.builder = Builder("context", model.graph)
        self.specs: list[StateSpec] = []
        self.one_length = False
        self.of_chunks: set[ir.Value] = set()
        self._taken = {str(value.name) for value in (*self.graph.inputs, *self.graph.outputs)}
        self._before: ir.Value | None = None

    def state(
        self, where: str, shape: Sequence[int | str], dtype: ir.DataType | None, initial: np.ndarray
    ) -> tuple[ir.Value, StateSpec]:
        """A new state as an input of the graph, called ``where``, or so with a number; ``initial`` has no batch axis."""
        assert dtype is not None
        name = where
        number = 0
        while {name, f"{name}.next"} & self._taken:
            number += 1
            name = f"{where}.{number}"
        self._taken |= {name, f"{name}.next"}
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.graph.inputs.append(value)
        kind = np.dtype(dtype.numpy())
        start = StateSpec.encode_initial(initial.astype(kind).ravel())
        plain = len(shape) == 2 and shape[0] == BATCH
        spec = StateSpec(name, f"{name}.next", str(kind), initial.size, start, None if plain else tuple(shape))
        self.specs.append(spec)
        return value, spec

    def end(self, spec: StateSpec, value: ir.Value, dtype: ir.DataType | None, shape: Sequence[int | str]) -> None:
        """``value`` is what the state becomes."""
        assert dtype is not None
        if value.is_graph_output() or value.is_graph_input():
            value = self.builder.op("Identity", value)
        value.name, value.type, value.shape = spec.output, ir.TensorType(dtype), ir.Shape(shape)
        self.graph.outputs.append(value)

    def insert_before(self, node: ir.Node) -> None:
        """The nodes written since the last time go before ``node``."""
        self.graph.insert_before(node, list(self.builder.nodes))
        self.builder.nodes.clear()

    def insert_first(self) -> None:
        """The nodes written since the last time go to the top of the graph."""
        self.graph.insert_before(next(iter(self.graph)), list(self.builder.nodes))
        self.builder.nodes.clear()

    def slice(self, x: ir.Value, axis: int, start: int, end: int) -> ir.Value:
        """Steps of ``x`` from one to another."""
        return self.builder.op("Slice", x, *(self.builder.constant([n]) for n in (start, end, axis)))

    def before_next(self, joined: ir.Value, x: ir.Value, axis: int, steps: int) -> ir.Value:
        """The ``steps`` of ``joined``, which ends with x, that come before the next run: it begins with the last of x again."""
        again = self.runs.again(sizes_of(x)[axis])
        assert again is not None  # nothing is made to remember where this is not known
        return self.slice(joined, axis, -steps - again, -again if again else LAST)

    def steps_before(self) -> ir.Value:
        """Steps that a sequence had before this run, int64 [batch, 1]: a state, and the same for whoever asks."""
        if self._before is None:
            kind = ir.DataType.INT64
            self._before, spec = self.state("steps", (BATCH, 1), kind, np.zeros(1))
            waiting, self.builder.nodes[:] = list(self.builder.nodes), []
            if self.lengths is None:
                x, axis = self.timed_input()
                count = self.builder.op("Shape", x, start=axis, end=axis + 1)
            else:
                count = self.builder.op("Cast", self.lengths, to=int(kind))
                count = self.builder.op("Unsqueeze", count, self.builder.constant([1]))
            if self.runs.steps:  # the next run begins with these
                count = self.builder.op("Sub", count, self.builder.constant([self.runs.steps]))
            self.end(spec, self.builder.op("Add", self._before, count), kind, (BATCH, 1))
            self.insert_first()
            self.builder.nodes[:] = waiting
        return self._before

    def timed_input(self) -> tuple[ir.Value, int]:
        """An input of the graph that has a time axis, and where it has it."""
        return next((value, sizes_of(value).index(TIME)) for value in self.graph.inputs if TIME in sizes_of(value))

    def is_first(self, rank: int, batch: int) -> ir.Value:
        """Whether nothing came before this chunk, for each row: as a value of ``rank`` axes."""
        first = self.builder.op("Equal", self.steps_before(), self.builder.constant([[0]]))
        return self.builder.op(
            "Reshape", first, self.builder.constant([-1 if axis == batch else 1 for axis in range(rank)])
        )

    def positions(self, x: ir.Value, time: int) -> ir.Value:
        """Places of the steps of ``x`` in the whole sequence, int64 [batch, time]."""
        before = self.steps_before()
        zero, one = self.builder.constant(0), self.builder.constant(1)
        count = self.builder.op("Squeeze", self.builder.op("Shape", x, start=time, end=time + 1))
        return self.builder.op("Add", before, self.builder.op("Range", zero, count, one))


def path_of(node: ir.Node) -> str:
    """Path, in the user's module, of the part that made a node."""
    scopes = re.findall(r"'([^']*)'", node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
    inside = [scope.removeprefix("module").removeprefix(".") for scope in scopes[:-1] if scope.startswith("module")]
    return inside[-1] if inside else ""


def name_of(node: ir.Node, what: str) -> str:
    """What a state that belongs to ``node`` is called."""
    return ".".join(filter(None, [path_of(node), what]))
