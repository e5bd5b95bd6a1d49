"""Positions: what follows the places of steps in a sequence, such as ``embedding(arange(time))`` or a table's first rows.

In a chunk they go on where the last one ended, in each row of a batch at its own place.  So what is computed of positions
alone is computed once more for all places of all rows, laid out as one long sequence [batch * time, ...], and put in where
it meets a value of every row:

======================================== =======================================================
in the graph                             in the file
======================================== =======================================================
``Range`` over the steps                 start + step * place
``Slice`` of a constant, its first steps ``Gather`` of the constant, by place
sizes: the number of steps               the number of places
======================================== =======================================================

A table ends somewhere: a sequence has no more steps than it has rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from rnncore.export.lowering.context_states import ContextStates
from rnncore.export.lowering.layouts import Layout, free_axes, numbers_of, part_of, sizes_of
from rnncore.export.tracing.states import above, depends, evaluated
from rnncore.runtime.format.axes import BATCH, TIME

_TOGETHER = {
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mod",
    "Mul",
}
_TOGETHER |= {"Or", "Pow", "Sub", "Where", "Xor"}
_OF_SIZES = {"Cast", "Concat", "Gather", "Reshape", "Shape", "Squeeze", "Unsqueeze"}
_SIZED = {"ConstantOfShape", "Expand", "Reshape", "Slice", "Tile"}
"""What takes sizes and nothing else of them; ``linspace`` divides by the number of steps, say."""
_TIMES_THE_TABLE = 8
"""So many times the rows of a table are looked up to see where places end: ``clamp`` and ``%`` never end."""


class _Unknown(Exception):
    """A value of which nobody knows what it is at other places."""


def carry_positions(states: ContextStates) -> None:
    """Rewrite what follows the places of steps in ``states.graph``, in place."""
    positional = _positional(states.graph)
    exits = [  # in the order of the graph: later ones read the copies that earlier ones made
        (node, place, layout)
        for node in list(states.graph)
        for place, value in enumerate(node.inputs)
        if value in positional and node.outputs[0] not in positional
        for layout in [_meeting(node)]
        if layout is not None
    ]
    if not exits:
        return
    copier = _Places(states, positional)
    for node, place, layout in exits:
        value = node.inputs[place]
        assert value is not None
        try:
            copier.put(value, node, place, layout)
        except _Unknown:
            states.builder.nodes.clear()
            continue
        states.one_length = True


def _positional(graph: ir.Graph) -> dict[ir.Value, None]:
    """Values with one free axis, time, that are computed of the places of steps, in the order of the graph."""
    found: dict[ir.Value, None] = {}
    for node in graph:
        for value in node.outputs:
            dims = sizes_of(value)
            if [dims[axis] for axis in free_axes(dims)] != [TIME] or depends(value):
                continue
            if _is_range(node) or _is_start_of_table(node) or any(own in found for own in node.inputs):
                found[value] = None
    return found


def _is_range(node: ir.Node) -> bool:
    return node.op_type == "Range" and numbers_of(node, 0) is not None and numbers_of(node, 2) is not None


def _is_start_of_table(node: ir.Node) -> bool:
    """Whether a node takes the first steps of a constant."""
    part = part_of(node)
    if part is None or part[0] != 0 or part[1] is not None:
        return False
    table, out = sizes_of(node.inputs[0]), sizes_of(node.outputs[0])
    return bool(table) and not free_axes(table) and free_axes(out) == [part[2]]


def _meeting(node: ir.Node) -> Layout | None:
    """How batch and time lie where a value of places meets one of every row, or becomes one."""
    layout = Layout.of(node.outputs[0])
    if layout is None or layout.dims[layout.time] != TIME or node.op_type not in {*_TOGETHER, "Expand", "Tile"}:
        return None
    return layout


class _Places:
    """Copies what is computed of places, for all places of all rows."""

    def __init__(self, states: ContextStates, positional: dict[ir.Value, None]) -> None:
        self._states = states
        self._builder = states.builder
        self._positional = positional
        self._copies: dict[ir.Value, ir.Value] = {}
        self._sizes: set[ir.Value | None] = set()  # copies that follow the number of places
        self._places: ir.Value | None = None

    def put(self, value: ir.Value, node: ir.Node, place: int, layout: Layout) -> None:
        """``value``, for the places of each row, as input ``place`` of ``node``."""
        dims = sizes_of(value)
        ahead = len(layout.dims) - len(dims)
        full: list[int | str] = [*[1] * ahead, *dims]
        if full[layout.batch] != 1:
            raise _Unknown
        if node.op_type == "Tile" and any(
            full[axis] != size for axis, size in enumerate(layout.dims) if axis != layout.batch
        ):
            raise _Unknown
        known = dict(self._copies)
        try:
            copied = self._copy(value)
        except _Unknown:
            self._copies = known  # the nodes of the others are dropped
            raise
        own = self._in_rows(copied, value, full, layout)
        self._states.insert_before(node)
        node.replace_input_with(place, own)
        if node.op_type == "Tile":
            ones = self._builder.constant([1] * len(layout.dims))
            node.replace_input_with(1, ones)

    def _in_rows(self, copied: ir.Value, value: ir.Value, full: Sequence[int | str], layout: Layout) -> ir.Value:
        """[..., batch * time, ...] as the ``layout`` has it."""
        steps = self._builder.op("Shape", self._positions(), start=1, end=2)
        sizes: list[ir.Value] = []
        order: list[int] = []  # axes of the result in the order of the reshaped value
        for axis, size in enumerate(full):
            if axis == layout.batch:
                continue
            if axis == layout.time:
                sizes += [self._builder.constant([-1]), steps]
                order += [layout.batch, layout.time]
            else:
                sizes.append(self._builder.constant([size]))
                order.append(axis)
        shape = self._builder.op("Concat", *sizes, axis=0)
        reshaped = self._builder.op("Reshape", copied, shape)
        back = [order.index(axis) for axis in range(len(full))]
        laid = reshaped if back == sorted(back) else self._builder.op("Transpose", reshaped, perm=back)
        laid.type = value.type
        laid.shape = ir.Shape([BATCH if axis == layout.batch else size for axis, size in enumerate(full)])
        return laid

    def _positions(self) -> ir.Value:
        """int64 [batch, time]; computed at the top of the graph, for all."""
        if self._places is None:
            waiting, self._builder.nodes[:] = list(self._builder.nodes), []
            x, axis = self._states.timed_input()
            self._places = self._states.positions(x, axis)
            self._flat = self._builder.op("Reshape", self._places, self._builder.constant([-1]))
            self._count = self._builder.op("Shape", self._flat)
            self._states.insert_first()
            self._builder.nodes[:] = waiting
        return self._places

    def _copy(self, value: ir.Value) -> ir.Value:
        """``value`` for all places of all rows."""
        if value in self._copies:
            return self._copies[value]
        node = value.producer()
        self._positions()
        if node is None or not any(part.is_graph_input() for part in above([value], through_sizes=True)):
            return value
        if value in self._positional and _is_range(node):
            copied = self._range(node, value)
        elif value in self._positional and _is_start_of_table(node):
            axis = (numbers_of(node, 3) or [0])[0]
            copied = self._builder.op("Gather", node.inputs[0], self._flat, axis=axis)
        elif node.op_type == "Shape":
            copied = self._size(node)
        else:
            copied = self._other(node, value)
        self._copies[value] = copied
        return copied

    def _range(self, node: ir.Node, value: ir.Value) -> ir.Value:
        assert value.dtype is not None
        start, step = node.inputs[0], node.inputs[2]
        places = self._builder.op("Cast", self._flat, to=int(value.dtype))
        if numbers_of(node, 2) != [1]:
            places = self._builder.op("Mul", places, step)
        return places if numbers_of(node, 0) == [0] else self._builder.op("Add", places, start)

    def _size(self, node: ir.Node) -> ir.Value:
        """A size, or sizes, of a value."""
        asked = _asked_of(node)
        if not asked or any(size != TIME for size in asked if not isinstance(size, int)):
            raise _Unknown
        sizes = [self._count if size == TIME else self._builder.constant([size]) for size in asked]
        found = sizes[0] if len(sizes) == 1 else self._builder.op("Concat", *sizes, axis=0)
        if TIME in asked:
            self._sizes.add(found)
        return found

    def _other(self, node: ir.Node, value: ir.Value) -> ir.Value:
        asked = node.inputs[0].producer() if node.op_type == "Gather" and node.inputs[0] is not None else None
        if asked is not None and asked.op_type == "Shape":
            index, dims = numbers_of(node, 1), _asked_of(asked)
            if index is not None and len(index) == 1 and index[0] < len(dims) and isinstance(dims[index[0]], int):
                like = node.inputs[1]
                return self._builder.constant(
                    [dims[index[0]]] if like is not None and sizes_of(like) else dims[index[0]]
                )
        if node.domain != "" or len(node.outputs) > 1:
            raise _Unknown
        inputs = [own if own is None else self._copy(own) for own in node.inputs]
        sized = any(own in self._sizes for own in inputs)
        over_time = TIME in sizes_of(value)
        if sized and node.op_type not in (_SIZED if over_time else _OF_SIZES):  # arithmetic on the number of steps
            raise _Unknown
        copied = self._builder.append(node.op_type, inputs, node.attributes.values(), 1)[0]
        copied.type = value.type
        if sized and not over_time:
            self._sizes.add(copied)
        return copied


def _asked_of(node: ir.Node) -> tuple[int | str, ...]:
    """The sizes that a ``Shape`` node gives."""
    dims = sizes_of(node.inputs[0])
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    return dims[start : node.attributes["end"].as_int() if "end" in node.attributes else len(dims)]


def most_steps(model: ir.Model) -> int | None:
    """Steps after which places lie beyond a table, None if they never do; of a model in which nothing is carried yet."""
    limits = []
    for node in model.graph:
        if node.op_type == "Slice" and _is_start_of_table(node):
            axis = (numbers_of(node, 3) or [0])[0]
            limits.append(int(sizes_of(node.inputs[0])[axis]))
        elif node.op_type == "Gather" and node.inputs[0] is not None and node.inputs[1] is not None:
            limits += _ends_of_table(model, node)
    return min(limits, default=None)


def _ends_of_table(model: ir.Model, node: ir.Node) -> list[int]:
    table, dims = sizes_of(node.inputs[0]), sizes_of(node.inputs[1])
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    if not table or free_axes(table) or TIME not in dims or depends(node.inputs[1]):
        return []
    rows, steps = int(table[axis]), _TIMES_THE_TABLE * int(table[axis])
    time = dims.index(TIME)
    fewer, more = (evaluated(model, [node.inputs[1]], count) for count in (steps, steps + 1))
    if not fewer or not more or not np.array_equal(fewer[0], np.take(more[0], range(steps), time)):
        return []  # places from the end, say: where they lie is for the sizes that were probed to tell
    places = np.moveaxis(fewer[0], time, 0).reshape(steps, -1)
    beyond = np.flatnonzero(((places >= rows) | (places < -rows)).any(1))
    return [int(beyond[0])] if len(beyond) and beyond[0] else []
