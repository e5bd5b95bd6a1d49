"""First steps of their own: what stands before the first step is made of the first steps themselves, or ends before them.

============================================ =======================================================================
in the graph                                 in the file
============================================ =======================================================================
``Concat`` of f(the first k steps) and y     f of every step where its place is below k, y otherwise; y of k steps
                                             less reads k steps of the past, which are a state
``Pad`` by k steps of y of k steps less      the same, with the value of the padding
an entry of a tensor of zeros and more       ``Concat``, as above
============================================ =======================================================================

So are shifts written whose first step is ``x[:1] * 0`` or ``x[:1]``, differences behind a first step, and convolutions
without padding before which something was put.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.column_ranges import ELEMENTWISE
from rnncore.export.graph.replace import put_in_place
from rnncore.export.lowering.context_states import ContextStates, name_of
from rnncore.export.lowering.layouts import Layout, cut_at_end, first_steps, numbers_of, sizes_of, steps_more
from rnncore.export.tracing.states import constant_value

_TOGETHER = ELEMENTWISE | {"Equal", "Greater", "Less", "Mod", "Where"}
_SIZED = {"Expand", "Reshape"}


class _Unknown(Exception):
    """What is done to the first steps is not the same for each of them."""


def carry_first_steps(states: ContextStates) -> None:
    """Rewrite what begins with steps of its own in ``states.graph``, in place."""
    for node in list(states.graph):
        if node.domain == "" and node.op_type == "ScatterND":
            _as_concat(states, node)
    for node in list(states.graph):
        if node.domain != "" or node.op_type not in ("Concat", "Pad"):
            continue
        found = _Beginning.of(states, node)
        if found is not None:
            found.write()


def _as_concat(states: ContextStates, node: ir.Node) -> None:
    """``y[k:] = x`` as ``Concat(y[:k], x)``, where the first axis is time."""
    data, index, values = node.inputs
    places = None if index is None else index.producer()
    if data is None or values is None or places is None or places.op_type != "Unsqueeze":
        return
    if "reduction" in node.attributes and node.attributes["reduction"].as_string() != "none":
        return  # added to what is there
    cut = places.inputs[0].producer() if places.inputs[0] is not None else None
    if cut is None or cut.op_type != "Slice" or steps_more(data, 0) != 0:  # time is the first axis
        return
    every = cut.inputs[0].producer() if cut.inputs[0] is not None else None
    start, step = numbers_of(cut, 1), numbers_of(cut, 4) if len(cut.inputs) > 4 else [1]
    if every is None or every.op_type != "Range" or numbers_of(every, 0) != [0] or step != [1] or not start:
        return
    if start[0] < 1 or steps_more(values, 0) != -start[0]:
        return
    builder = states.builder
    joined = builder.op("Concat", _cut(states, data, 0, start[0]), values, axis=0)
    _replace(states, node, joined)


def _cut(states: ContextStates, x: ir.Value, axis: int, steps: int) -> ir.Value:
    """The first steps of x, with its shape."""
    cut = states.slice(x, axis, 0, steps)
    cut.type = x.type
    cut.shape = ir.Shape([steps if place == axis else size for place, size in enumerate(sizes_of(x))])
    return cut


def _replace(states: ContextStates, node: ir.Node, result: ir.Value) -> None:
    states.insert_before(node)
    put_in_place(node.outputs[0], result)
    states.graph.remove(node, safe=True)


class _Beginning:
    """One node that puts ``steps`` steps before ``rest``."""

    def __init__(self, states: ContextStates, node: ir.Node, rest: ir.Value, layout: Layout, steps: int) -> None:
        self._states = states
        self._builder = states.builder
        self._node = node
        self._rest = rest
        self._layout = layout
        self._steps = steps
        self._first: Callable[[], ir.Value]

    @classmethod
    def of(cls, states: ContextStates, node: ir.Node) -> _Beginning | None:
        """What ``node`` does, None if it is nothing of this kind."""
        rest, layout = node.inputs[-1 if node.op_type == "Concat" else 0], Layout.of(node.outputs[0])
        if rest is None or layout is None or steps_more(node.outputs[0], layout.time) != 0:
            return None
        more = steps_more(rest, layout.time)
        own = Layout.of(rest)
        if more is None or more >= 0 or own is None:
            return None
        found = cls(states, node, rest, layout, -more)
        try:
            known = found._pads() if node.op_type == "Pad" else found._begins()
        except _Unknown:
            states.builder.nodes.clear()
            return None
        return found if known else None

    def _pads(self) -> bool:
        pads, time, rank = numbers_of(self._node, 1), self._layout.time, len(self._layout.dims)
        mode = self._node.attributes["mode"].as_string() if "mode" in self._node.attributes else "constant"
        if pads is None or mode != "constant" or cut_at_end(self._rest, time) is not None:
            return False  # a shift: the plainer way holds it
        expected = [self._steps if place == time else 0 for place in range(2 * rank)]
        fill = self._node.inputs[2] if len(self._node.inputs) > 2 else None
        if pads != expected or len(self._node.inputs) > 3 or self._rest.dtype is None:
            return False
        kind = self._rest.dtype.numpy()
        self._first = lambda: self._builder.constant(0, kind) if fill is None else fill
        return self._is_local(self._rest)

    def _begins(self) -> bool:
        node, time = self._node, self._layout.time
        first = node.inputs[0]
        if first is None or len(node.inputs) != 2 or sizes_of(first)[time : time + 1] != (self._steps,):
            return False
        constant = constant_value(self._states.model, first, self._layout.batch)
        if constant is not None:
            if cut_at_end(self._rest, time) is not None:
                return False
            at = time - (self._layout.batch < time)
            one = np.take(constant, [0], at)
            if not np.array_equal(np.broadcast_to(one, constant.shape), constant) or not np.isfinite(one).all():
                return False
            self._first = lambda: self._builder.constant(np.expand_dims(one, self._layout.batch), one.dtype)
        elif not _comes_from(first, lambda part: self._source_of_first(part) is not None):
            return False
        cut = cut_at_end(self._rest, time)
        if not (self._is_local(self._rest) if cut is None else Layout.of(cut[0]) is not None):
            return False
        if constant is None:
            made = self._of_every_step(first, {})
            self._first = lambda: made
        return True

    def _source_of_first(self, value: ir.Value) -> ir.Value | None:
        """What ``value`` is the first steps of, as many as here; None if it is not that."""
        begin, node = first_steps(value), value.producer()
        cut = begin is not None and begin[2] == self._steps and node is not None and node.op_type == "Slice"
        return begin[0] if cut and begin is not None else None

    def _of_every_step(self, value: ir.Value, copies: dict[ir.Value, ir.Value]) -> ir.Value:
        """What was made of the first steps, made of all."""
        if value in copies:
            return copies[value]
        source, node = self._source_of_first(value), value.producer()
        if source is not None:
            return source
        if node is None:
            return value
        inputs = [own if own is None else self._of_every_step(own, copies) for own in node.inputs]
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            return value
        self._check_alike(node, [a for a, b in zip(inputs, node.inputs, strict=True) if a is b])
        copied = self._builder.append(node.op_type, inputs, node.attributes.values(), 1)[0]
        copied.type = value.type
        copies[value] = copied
        return copied

    def _check_alike(self, node: ir.Node, others: list[ir.Value | None]) -> None:
        """Raise where ``node`` meets ``others`` that have an entry for each of the first steps, or the number of them."""
        back = len(self._layout.dims) - self._layout.time
        sizes = [sizes_of(other) for other in others]
        each = any(len(own) >= back and own[-back] != 1 for own in sizes)
        if (node.op_type in _TOGETHER and each) or (node.op_type in _SIZED and node.inputs[1] in others):
            raise _Unknown

    def _is_local(self, rest: ir.Value) -> bool:
        """Whether ``rest`` is computed of whole values in time by plain operators only."""
        return _comes_from(rest, _is_whole_in_time)

    # ----------------------------------------------------------------------------------------------------- writing

    def write(self) -> None:
        """Put it in the place of the node."""
        states, layout = self._states, self._layout
        first = self._first()
        cut = cut_at_end(self._rest, layout.time)
        if cut is not None and cut[1] == self._steps:
            joined = self._joined(cut[0])
            rest = states.slice(joined, layout.time, 0, -cut[1])
        else:
            rest = self._longer(self._rest, {})
        x, axis = states.timed_input()
        below = self._builder.op("Less", states.positions(x, axis), self._builder.constant([[self._steps]]))
        if layout.time < layout.batch:
            below = self._builder.op("Transpose", below, perm=[1, 0])
        others = [axis for axis in range(len(layout.dims)) if axis not in (layout.batch, layout.time)]
        if others:
            below = self._builder.op("Unsqueeze", below, self._builder.constant(others))
        _replace(states, self._node, self._builder.op("Where", below, first, rest))
        states.one_length = True

    def _longer(self, value: ir.Value, copies: dict[ir.Value, ir.Value]) -> ir.Value:
        """``value`` of so many steps more, those before the first ones."""
        if value in copies:
            return copies[value]
        layout, node = Layout.of(value), value.producer()
        if layout is not None and steps_more(value, layout.time) == 0:
            copies[value] = self._joined(value)
        elif node is None:
            return value
        else:
            inputs = [own if own is None else self._longer(own, copies) for own in node.inputs]
            if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
                return value
            copies[value] = self._builder.append(node.op_type, inputs, node.attributes.values(), 1)[0]
            copies[value].type = value.type
        return copies[value]

    def _joined(self, x: ir.Value) -> ir.Value:
        """The last steps before a chunk, and the chunk."""
        layout = Layout.of(x)
        assert layout is not None  # of such values only
        states, shape = self._states, layout.shape(self._steps)
        before, spec = states.state(name_of(self._node, "context"), shape, x.dtype, np.zeros(layout.item(self._steps)))
        joined = self._builder.op("Concat", before, x, axis=layout.time)
        states.end(spec, states.before_next(joined, x, layout.time, self._steps), x.dtype, shape)
        return joined


def _is_whole_in_time(value: ir.Value) -> bool:
    layout = Layout.of(value)
    return layout is not None and steps_more(value, layout.time) == 0


def _comes_from(value: ir.Value, is_source: Callable[[ir.Value], bool]) -> bool:
    """Whether ``value`` is computed of sources, constants and sizes, of one source at least, by operators of one result."""
    todo, seen, found = [(value, False)], set[tuple[ir.Value, bool]](), False
    while todo:
        current, of_size = todo.pop()
        if (current, of_size) in seen:
            continue
        seen.add((current, of_size))
        if is_source(current):
            found = found or not of_size
            continue
        node = current.producer()
        if node is None:
            if current.is_graph_input() and not of_size:
                return False
            continue
        if node.domain != "" or len(node.outputs) > 1:
            return False
        todo += [(part, of_size or node.op_type == "Shape") for part in node.inputs if part is not None]
    return found
