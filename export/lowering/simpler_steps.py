"""Operators of a step that onnxruntime does in less as others: every node of a loop is paid for at every step.

A convolution over a window of the last steps, one for each channel, is a product and a sum: of 48 channels and four steps it
takes 0.5 us in place of 5 (onnxruntime 1.32, one thread, AVX-512).  What is spread over the rows of the batch, and has these
rows already, needs not to ask how many they are.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.replace import put_in_place
from rnncore.export.graph.simplify import choose_by_size
from rnncore.export.lowering.heads_apart import keep_heads_apart
from rnncore.export.lowering.layouts import END, part_of
from rnncore.export.lowering.unspread import unspread

_PLACES = 2
"""Convolutions of more places than this are left to onnxruntime, as most of them may be wanted."""


def simplify_step(graph: ir.Graph) -> None:
    """Write steps of cells simpler, in place; their first axis is that of the rows."""
    unspread(graph)
    names = Builder("product", graph)
    for node in list(graph):
        if node.op_type == "Expand":
            _spread_without_asking(graph, node)
        if node.op_type == "Conv":
            _convolve_once(graph, node, names.nested())
    keep_heads_apart(graph)
    choose_by_size(graph)


def _spread_without_asking(graph: ir.Graph, node: ir.Node) -> None:
    """``Expand(x [batch, 1, n], [batch, m, n])`` to [1, m, n]: x brings its rows."""
    x, target = node.inputs
    before, after = dims_of(x), dims_of(node.outputs[0])
    fixed = all(isinstance(size, int) for size in after[1:])
    if not before or len(before) != len(after) or not fixed or isinstance(after[0], int) or after[0] is None:
        return
    if before[0] == after[0] and target is not None and target.const_value is None:
        node.replace_input_with(1, Builder("rows", graph).constant([1, *after[1:]]))


def _convolve_once(graph: ir.Graph, node: ir.Node, builder: Builder) -> None:
    """One convolution for each channel, of which the last place alone is wanted, as a product and a sum."""
    x, weight, *bias = node.inputs
    sizes, kernel = dims_of(x), dims_of(weight)
    if (
        x is None
        or weight is None
        or weight.const_value is None
        or len(sizes) != 3
        or len(kernel) != 3
        or not _is_plain(node)
    ):
        return
    channels, places = sizes[1:]
    if kernel[:2] != [channels, 1] or node.attributes["group"].as_int() != channels:
        return
    width = kernel[2]
    if not isinstance(places, int) or not isinstance(width, int) or not 1 <= places - width + 1 <= _PLACES:
        return
    result = node.outputs[0]
    users = [user for user, _ in result.uses()]
    if places > width and (result.is_graph_output() or not users or not all(map(_is_last_place, users))):
        return
    seen = x if places == width else _last(builder, x, width)
    product = builder.op("Mul", seen, builder.op("Squeeze", weight, builder.constant([1])))
    found = total = builder.op("ReduceSum", product, builder.constant([-1]), keepdims=1)
    if bias and bias[0] is not None:
        found = builder.op("Add", total, builder.op("Unsqueeze", bias[0], builder.constant([-1])))
    for value, places in ((seen, width), (product, width), (total, 1)):
        value.type, value.shape = result.type, ir.Shape([sizes[0], channels, places])
    graph.insert_before(node, builder.nodes)
    for old in [result] if seen is x else [user.outputs[0] for user in users]:
        put_in_place(old, found)
        if old is not result:
            graph.remove(old.producer(), safe=True)  # type: ignore[arg-type]
    graph.remove(node, safe=True)


def _is_plain(node: ir.Node) -> bool:
    """Whether a convolution has a stride, a dilation, padding and a group as are taken here."""
    known = node.attributes
    ones = all(name not in known or set(known[name].as_ints()) <= {1} for name in ("strides", "dilations"))
    unpadded = "pads" not in known or set(known["pads"].as_ints()) <= {0}
    asked = "auto_pad" not in known or known["auto_pad"].as_string() == "NOTSET"
    return ones and unpadded and asked and "group" in known


def _is_last_place(node: ir.Node) -> bool:
    """Whether ``node`` takes the last entry of the last of three axes."""
    return _slice_of(node) in ((-1, 2), (-1, -1))


def _slice_of(node: ir.Node) -> tuple[int, int] | None:
    """(start, axis) of a ``Slice`` that goes to the end of one axis, one by one."""
    part = part_of(node)
    return (part[0], part[2]) if part is not None and part[1] is not None and part[1] >= END else None


def _last(builder: Builder, x: ir.Value, width: int) -> ir.Value:
    """The last ``width`` entries of the last axis: what the next state is, where a step keeps a window."""
    for user, _ in x.uses():
        if _slice_of(user) in ((-width, 2), (-width, -1)):
            return user.outputs[0]
    return builder.op("Slice", x, *map(builder.constant, ([-width], [np.iinfo(np.int64).max], [-1], [1])))
