"""What is put together for a loop, side by side, and taken apart by its step: the parts are there already."""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.graph.dims import dims_of


def parts_of(node: ir.Node, z: ir.Value) -> list[ir.Value]:
    """What z [batch, time, n] was put together of, if the ``Split`` of a step takes it apart into the same; else nothing."""
    maker = z.producer()
    if node.op_type != "Split" or maker is None or maker.op_type != "Concat" or None in maker.inputs:
        return []
    parts = [value for value in maker.inputs if value is not None]
    last = maker.attributes["axis"].as_int() % 3 == 2 and node.attributes.get_int("axis", 0) % 2 == 1
    widths = [dims_of(value)[-1:] for value in parts]
    return parts if last and widths == [dims_of(value)[-1:] for value in node.outputs] and [] not in widths else []


def first_part(z: ir.Value) -> ir.Value:
    """What has the rows and steps of z, and is needed anyway: onnxruntime goes on to compute what it only asks for a size."""
    maker = z.producer()
    joined = maker is not None and maker.op_type == "Concat" and maker.attributes["axis"].as_int() in (2, -1)
    return maker.inputs[0] if joined and len(z.shape or ()) == 3 else z  # type: ignore[union-attr, return-value]
