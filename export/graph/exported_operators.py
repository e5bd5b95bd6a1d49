"""Operators as torch's exporter writes them, where the inference of shapes, onnx's or onnxruntime's, takes them for others."""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.export.graph.dims import dims_of


def mend_operators(graph: ir.Graph) -> None:
    """Give ``Einsum`` no operand that it would have to stretch, an inverse ``DFT`` all frequencies, and each digits enough."""
    for node in list(graph):
        if node.op_type == "Einsum":
            _without_stretching(graph, node)
        if node.op_type == "DFT" and _flag(node, "inverse") and _flag(node, "onesided"):
            _with_all_frequencies(graph, node)
        if node.op_type == "DFT" and not _is_power_of_two(node):
            _in_double(graph, node)


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and node.attributes[name].as_int() == 1


def _is_power_of_two(node: ir.Node) -> bool:
    length = node.inputs[1] if len(node.inputs) > 1 else None
    known = None if length is None else ir.convenience.get_const_tensor(length)
    size = 0 if known is None else int(known.numpy().reshape(-1)[0])
    return size > 0 and size & (size - 1) == 0


def _in_double(graph: ir.Graph, node: ir.Node) -> None:
    """Compute a ``DFT`` in float64: of other lengths than powers of two onnxruntime's loses four digits at a thousand steps."""
    (given, *_), made = node.inputs, node.outputs[0]
    if given is None or given.dtype != ir.DataType.FLOAT:
        return
    builder = Builder(f"{node.name}/digits", graph)
    wide = builder.op("Cast", given, to=ir.DataType.DOUBLE)
    graph.insert_before(node, builder.nodes)
    node.replace_input_with(0, wide)
    builder.nodes = []
    narrow = builder.op("Cast", made, to=ir.DataType.FLOAT)
    for consumer, place in list(made.uses()):
        if consumer is not narrow.producer():
            consumer.replace_input_with(place, narrow)
    narrow.type, narrow.shape = made.type, made.shape
    made.type = ir.TensorType(ir.DataType.DOUBLE)
    graph.insert_after(node, builder.nodes)
    if made.is_graph_output():
        graph.outputs[list(graph.outputs).index(made)] = narrow
        made.name, narrow.name = f"{node.name}/wide", made.name


def _without_stretching(graph: ir.Graph, node: ir.Node) -> None:
    """Leave out letters that stand for an axis of 1 in one operand and for a longer one in another.

    onnx infers the size of the first operand that has the letter; that a value is the same for all entries of an axis is said
    by not having the axis as well.
    """
    terms, arrow, result = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    operands = terms.split(",")
    if (
        "." in terms
        or not arrow
        or any(len(dims_of(v)) != len(own) for v, own in zip(node.inputs, operands, strict=True))
    ):
        return
    longer = {
        letter
        for value, own in zip(node.inputs, operands, strict=True)
        for letter, size in zip(own, dims_of(value), strict=True)
        if size != 1
    }
    changed = False
    for place, (value, own) in enumerate(zip(node.inputs, operands, strict=True)):
        single = [
            k
            for k, (letter, size) in enumerate(zip(own, dims_of(value), strict=True))
            if size == 1 and letter in longer
        ]
        if single and value is not None:
            builder = Builder(f"{node.name}/operand_{place}", graph)
            squeezed = builder.op("Squeeze", value, builder.constant(single))
            squeezed.type = value.type
            squeezed.shape = ir.Shape([size for k, size in enumerate(value.shape or ()) if k not in single])
            graph.insert_before(node, builder.nodes)
            node.replace_input_with(place, squeezed)
            operands[place] = "".join(letter for k, letter in enumerate(own) if k not in single)
            changed = True
    if changed:
        node.attributes["equation"] = ir.AttrString("equation", f"{','.join(operands)}->{result}")


def _with_all_frequencies(graph: ir.Graph, node: ir.Node) -> None:
    """Give an inverse ``DFT`` all frequencies, the second half as the mirror of the first, where it is given one half.

    onnx takes what comes out for as long as that half, and onnxruntime gives two values of different lengths one buffer.
    """
    half, length, axis = [*node.inputs, None, None][:3]
    known = ir.convenience.get_const_tensor(axis) if axis is not None else None
    if half is None or length is None or (axis is not None and known is None):
        return
    place = -2 if known is None else int(known.numpy().reshape(-1)[0])
    builder = Builder(f"{node.name}/frequencies", graph)
    one = builder.constant([1])
    length = builder.op("Reshape", length, one)
    last = builder.op("Div", builder.op("Sub", length, one), builder.constant([2]))
    ends = (builder.constant([0]), builder.constant([place]), builder.constant([-1]))
    mirrored = builder.op("Slice", half, last, *ends)
    signs = builder.constant([1, -1], (half.dtype or ir.DataType.FLOAT).numpy())
    parts = builder.op("Mul", mirrored, signs)
    whole = builder.op("Concat", half, parts, axis=place)
    whole.type = half.type
    graph.insert_before(node, builder.nodes)
    node.replace_input_with(0, whole)
    node.attributes["onesided"] = ir.AttrInt64("onesided", 0)
    wrong = list(node.outputs)
    while wrong:  # until it is torch's own result again, whose sizes torch knows
        value = wrong.pop()
        value.shape = None
        made = [result for consumer in value.consumers() for result in consumer.outputs]
        wrong += [result for result in made if (result.name or "").startswith("val_")]
