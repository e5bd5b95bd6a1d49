"""Last steps that are cut off are not computed: the cut is done before layers and what answers step by step.

``lstm(F.pad(x, (0, 0, 1, 0)))[:, :-1]``, which answers to what came before each step, runs its layer over one step more than
there are, and a stream would run it over a step of every chunk twice.  Of what reads no later steps, the first n steps of the
answer are the answer to the first n steps, so the cut moves up until it stands behind the padding: a shift, which is known.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.column_ranges import ELEMENTWISE
from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.replace import put_in_place
from rnncore.export.lowering.layouts import cut_at_end, part_of, sizes_of, steps_more
from rnncore.export.tracing.recorder import DOMAIN, OP_TYPE, Call
from rnncore.runtime.format.axes import TIME

_STEP_BY_STEP = ELEMENTWISE | {"And", "Cast", "Equal", "Greater", "Less", "Not", "Or", "PRelu", "Where"}
Axes = list[int | None]
"""For each input of a node the axis along which it is cut as well; None for one that stays as it is."""


def cut_earlier(model: ir.Model, calls: Mapping[str, Call]) -> bool:
    """Move cuts of ``model`` up, in place; ``calls``: the recurrent calls in it.  Returns whether any was moved."""
    return _Cuts(model.graph, calls).run()


class _Cuts:
    def __init__(self, graph: ir.Graph, calls: Mapping[str, Call]) -> None:
        self._graph, self._calls = graph, calls
        self._builder = Builder("earlier_cut", graph)

    def run(self) -> bool:
        moved = False
        todo = [node for node in self._graph if part_of(node) is not None]
        while todo:
            node = todo.pop()
            more = self._moved(node) if node.graph is self._graph else None
            if more is not None:
                moved, todo = True, [*todo, *more]
        return moved

    def _moved(self, node: ir.Node) -> list[ir.Node] | None:
        """Do what ``node`` cuts off not even compute; the cuts that stand before it then.  None where that is no gain."""
        part = part_of(node)
        axis = -1 if part is None else part[2]
        found = cut_at_end(node.outputs[0], axis) if axis >= 0 else None
        if found is None:
            return None
        value, cut = found
        source, more = value.producer(), steps_more(value, axis)
        cuts = [user for user, _ in value.uses() if user.op_type != "Shape"]
        if source is None or more is None or more < cut or value.is_graph_output():
            return None
        if any(cut_at_end(user.outputs[0], axis) != (value, cut) for user in cuts):
            return None
        axes = self._axes(source, axis)
        if axes is None or all(own is None for own in axes):
            return None
        made: list[ir.Node] = []
        inputs = [
            one if own is None or one is None else self._cut(one, own, cut, made)
            for one, own in zip(source.inputs, axes, strict=True)
        ]
        if source.domain == DOMAIN and source.inputs[1] is source.inputs[0]:
            inputs[1] = inputs[0]
        again = ir.Node(
            source.domain,
            source.op_type,
            inputs,
            list(source.attributes.values()),
            num_outputs=len(source.outputs),
            name=self._builder.name(source.op_type),
        )
        for old, new in zip(source.outputs, again.outputs, strict=True):
            new.name, new.type, new.shape = self._builder.name(source.op_type), old.type, old.shape
            new.meta.update(old.meta)
        again.meta.update(source.meta)
        _with_steps(again.outputs[source.outputs.index(value)], axis, more - cut)
        self._graph.insert_before(source, [*made, again])
        for user in cuts:
            put_in_place(user.outputs[0], again.outputs[source.outputs.index(value)])
        self._graph.remove(cuts, safe=True)
        if not any(output.uses() for output in source.outputs):
            self._graph.remove(source, safe=True)
        return made

    def _cut(self, value: ir.Value, axis: int, cut: int, made: list[ir.Node]) -> ir.Value:
        """``value`` without the last steps."""
        more = steps_more(value, axis)
        assert more is not None
        result = self._builder.op("Slice", value, *(self._builder.constant([n]) for n in (0, -cut, axis)))
        result.type, result.shape = value.type, value.shape
        _with_steps(result, axis, more - cut)
        made += self._builder.nodes
        self._builder.nodes.clear()
        return result

    def _axes(self, node: ir.Node, axis: int) -> Axes | None:
        """Along which axes the inputs of ``node`` are cut where its result is along ``axis``; None if that is another thing."""
        axes = (
            self._of_call(node, axis)
            if node.domain == DOMAIN
            else _of_operator(node, axis)
            if not node.domain
            else None
        )
        known = axes is not None and all(
            own is None or (one is not None and steps_more(one, own) is not None and TIME in str(sizes_of(one)[own]))
            for one, own in zip(node.inputs, axes, strict=True)
        )
        return axes if known else None

    def _of_call(self, node: ir.Node, axis: int) -> Axes | None:
        """A layer that runs forward, without lengths, whose last state nobody reads."""
        if node.op_type != OP_TYPE or axis != 1 or node.inputs[2] is not None:
            return None
        call = self._calls.get(node.attributes["call"].as_string())
        finals = [final for final in node.outputs[1:] if final.uses() or final.is_graph_output()]
        if call is None or call.layer.reverse or finals:
            return None
        return [1, 1, *(None for _ in node.inputs[2:])]


def _of_operator(node: ir.Node, axis: int) -> Axes | None:
    """The same for an operator of ONNX."""
    rank, first = len(dims_of(node.outputs[0])), node.inputs[0]
    rest: Axes = [None] * (len(node.inputs) - 1)
    if first is None or len(node.outputs) != 1:
        return None
    own_rank = len(dims_of(first))
    match node.op_type:
        case name if name in _STEP_BY_STEP:
            return _aligned(node, axis, rank)
        case "MatMul":
            return [axis, *rest] if axis < rank - 1 and len(dims_of(node.inputs[1])) == 2 else None
        case "Transpose":
            return [list(node.attributes["perm"].as_ints())[axis]] if "perm" in node.attributes else None
        case "LayerNormalization":
            start = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
            return [axis, *rest] if axis < start % rank else None
        case "Softmax" | "LogSoftmax":
            over = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
            return [axis] if axis != over % rank else None
        case "Gather":  # the rows of a table
            table = "axis" not in node.attributes or node.attributes["axis"].as_int() == 0
            ids = len(dims_of(node.inputs[1]))
            return [None, axis] if table and axis < ids and TIME not in str(sizes_of(first)) else None
        case "Unsqueeze" | "Squeeze":
            return _of_ones(node, axis, own_rank, rank)
        case "Concat":
            along = node.attributes["axis"].as_int() % rank
            return [axis] * len(node.inputs) if along != axis else None
        case "Slice":
            part = part_of(node)
            return [axis, *rest] if part is not None and part[2] % rank != axis else None
        case "Conv":
            return _of_conv(node, axis, rest)
    return None


def _aligned(node: ir.Node, axis: int, rank: int) -> Axes:
    """Of arithmetic: its inputs are laid beside each other from behind; what has one entry there is spread."""
    found: Axes = []
    for value in node.inputs:
        dims = dims_of(value)
        own = axis - rank + len(dims)
        found.append(own if own >= 0 and dims[own] != 1 else None)
    return found


def _of_ones(node: ir.Node, axis: int, own_rank: int, rank: int) -> Axes | None:
    given = (
        ir.convenience.get_const_tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    )
    if given is None:
        return None
    longer = max(rank, own_rank)
    ones = {int(n) % longer for n in given.numpy().ravel()}
    if node.op_type == "Unsqueeze":
        return [axis - sum(one < axis for one in ones), None] if axis not in ones else None
    left = [place for place in range(own_rank) if place not in ones]
    return [left[axis], None]


def _of_conv(node: ir.Node, axis: int, rest: Axes) -> Axes | None:
    """One that takes every step, and pads none behind the last."""
    place = axis - 2
    half = len(dims_of(node.inputs[0])) - 2
    if place < 0 or ("auto_pad" in node.attributes and node.attributes["auto_pad"].as_string() != "NOTSET"):
        return None
    strides = list(node.attributes["strides"].as_ints()) if "strides" in node.attributes else [1] * half
    pads = list(node.attributes["pads"].as_ints()) if "pads" in node.attributes else [0] * 2 * half
    return [axis, *rest] if strides[place] == 1 and pads[place + half] == 0 else None


def _with_steps(value: ir.Value, axis: int, more: int) -> None:
    """Say that ``value`` has so many steps more than the input."""
    sizes = dims_of(value)
    sizes[axis] = TIME if more == 0 else f"{TIME} {'+' if more > 0 else '-'} {abs(more)}"
    value.shape = ir.Shape(sizes)
