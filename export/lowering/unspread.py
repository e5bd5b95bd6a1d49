"""What a step spreads over axes is computed as it was before, and spread where something else than arithmetic reads it.

A gate for each head is written as one for each number of a matrix memory (``dt[:, :, None].expand(...)``), and then multiplied,
and raised to a power, that many times at every step.  Arithmetic on an axis of 1 spreads it by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder, initializer
from rnncore.export.graph.column_ranges import ARITHMETIC
from rnncore.export.graph.dims import broadcast, dims_of

_SPARED = 8
"""So many times fewer numbers are worth a change."""
_LARGE = 32
"""Numbers for a row from which on a value is looked at."""
Dims = list[int | str | None]


def unspread(graph: ir.Graph) -> None:
    """Let arithmetic of the steps in ``graph`` read values as they are before they are spread, in place."""
    _Unspread(graph).run()


class _Unspread:
    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._small: dict[ir.Value, ir.Value] = {}
        self._names = Builder("unspread", graph)

    def run(self) -> None:
        for node in list(self._graph):
            if node.op_type in ARITHMETIC and not node.domain and None not in node.inputs:
                self._arithmetic(node)
            elif node.op_type == "Expand":
                self._keep(node.outputs[0], node.inputs[0])
            elif node.op_type in ("Unsqueeze", "Reshape") and node.inputs[0] in self._small:
                self._moved(node, self._small[node.inputs[0]])
        for full, small in self._small.items():
            self._spread_for_others(full, small)

    def _keep(self, full: ir.Value, given: ir.Value | None) -> None:
        """``given``, or what it was made of, may stand for ``full`` where that is spared."""
        if given is None:
            return
        small = self._small.get(given, given)
        if _is_spared(dims_of(full), dims_of(small)):
            self._small[full] = small

    def _arithmetic(self, node: ir.Node) -> None:
        inputs = [self._smallest(value) for value in node.inputs if value is not None]
        if inputs == list(node.inputs):
            return
        full = dims_of(node.outputs[0])
        made = broadcast([dims_of(value) for value in inputs])
        if made == full:
            for place, value in enumerate(inputs):
                node.replace_input_with(place, value)
        elif _is_spared(full, made):
            copy = self._written(
                node, lambda builder: builder.append(node.op_type, inputs, node.attributes.values(), 1)[0]
            )
            copy.type, copy.shape = node.outputs[0].type, ir.Shape(made)
            self._small[node.outputs[0]] = copy

    def _smallest(self, value: ir.Value) -> ir.Value:
        if value in self._small:
            return self._small[value]
        if value.const_value is not None and len(dims_of(value)) > 1:  # a vector of weights stays what it is
            self._keep(value, self._once(value, value.const_value.numpy()))
        return self._small.get(value, value)

    def _once(self, value: ir.Value, array: np.ndarray) -> ir.Value | None:
        """A constant without its repetitions."""
        for axis, size in enumerate(array.shape):
            first = array.take([0], axis)
            array = first if size > 1 and bool((array == first).all()) else array
        if array.size * _SPARED > prod(size for size in dims_of(value) if isinstance(size, int)):
            return None
        return initializer(self._graph, f"{value.name}/once", ir.tensor(np.ascontiguousarray(array)))

    def _moved(self, node: ir.Node, small: ir.Value) -> None:
        """The same of ``small``, where no axis that is spread is mixed with another."""
        before, now, after = dims_of(node.inputs[0]), dims_of(small), dims_of(node.outputs[0])
        made = _regrouped(before, now, after)
        if made is None or not _is_spared(after, made):
            return
        target = [0, *made[1:]]
        value = self._written(node, lambda builder: builder.op("Reshape", small, builder.constant(target)))
        value.type, value.shape = node.outputs[0].type, ir.Shape(made)
        self._small[node.outputs[0]] = value

    def _written(self, node: ir.Node, write: Callable[[Builder], ir.Value]) -> ir.Value:
        builder = self._names.nested()
        value = write(builder)
        self._graph.insert_before(node, builder.nodes)
        return value

    def _spread_for_others(self, full: ir.Value, small: ir.Value) -> None:
        """``full`` as ``small`` spread, for what still reads it, unless it is that already or never made."""
        node = full.producer()
        if node is None or node.op_type == "Expand" or not (full.uses() or full.is_graph_output()):
            return
        builder = self._names.nested()
        spread = builder.op("Expand", small, builder.constant([1, *dims_of(full)[1:]]))
        self._graph.insert_after(node, builder.nodes)
        spread.type, spread.shape = full.type, full.shape
        full.replace_all_uses_with(spread, replace_graph_outputs=True)


def _is_spared(full: Dims, small: Dims) -> bool:
    """Whether rows of ``small`` numbers can stand for rows of ``full`` ones, and are much fewer."""
    if not full or len(full) != len(small) or (not isinstance(full[0], int) and full[0] != small[0]):
        return False
    rows = 0 if isinstance(full[0], int) else 1
    sizes, fewer = _numbers(full[rows:]), _numbers(small[rows:])
    return sizes is not None and fewer is not None and sizes >= _LARGE and fewer * _SPARED <= sizes


def _numbers(dims: Iterable[int | str | None]) -> int | None:
    sizes = list(dims)
    return prod(size for size in sizes if isinstance(size, int)) if all(isinstance(s, int) for s in sizes) else None


def _regrouped(before: Dims, now: Dims, after: Dims) -> Dims | None:
    """``now``, of which some axes of ``before`` are 1, as the axes of ``after``; None if an axis is mixed with another."""
    if (
        not before
        or not after
        or before[0] != after[0]
        or now[0] != before[0]
        or None in (_numbers(before[1:]), _numbers(after[1:]))
    ):
        return None
    made: Dims = [now[0]]
    i = j = 1
    while i < len(before) or j < len(after):
        start, place, left, right = i, j, 1, 1
        while True:
            if (left <= right and i < len(before)) or j == len(after):
                if i == len(before):
                    return None
                left, i = left * int(before[i]), i + 1  # type: ignore[arg-type]
            else:
                right, j = right * int(after[j]), j + 1  # type: ignore[arg-type]
            if left == right and (i > start or j > place):
                break
        if now[start:i] == before[start:i]:
            made += after[place:j]
        elif all(size == 1 for size in now[start:i]):
            made += [1] * (j - place)
        else:
            return None
    return made
