"""The recurrence as a ``Scan`` that every program runs alike, and the rest of the graph in words that all understand.

What onnxruntime 1.32, OpenVINO 2026.4, onnx.reference 1.23 and tract 0.23.9 agree on is narrower than the standard:

- tract has no ``Loop``, follows ``If`` only where both branches have the same symbolic shape, and reads ``ConstantOfShape``
  without a value as zeros in double precision;
- onnx.reference scans along the first axis and forward only, and joins what a ``Loop`` puts out along the wrong axis;
- OpenVINO's ``Scan`` takes weights from outside, but no computed values;
- in tract, what a body puts out for each step must not be used in the body as well.

So: time first, reversed by ``Gather`` where needed, lengths as a mask that is scanned along, constants folded.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from rnncore.export.graph.builder import Builder
from rnncore.export.lowering.recurrence import Recurrence

_LARGEST_GROWN_BYTES = 1 << 16  # a folded tensor may be larger than what it is made from up to this size
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


def emit_portable(builder: Builder, rec: Recurrence, lengths: ir.Value | None) -> list[ir.Value]:
    """[y [batch, time, size], *final states]; with lengths, at t >= length the state is held and the output is zero."""
    z = builder.op("Transpose", rec.z, perm=[1, 0, 2])
    time = builder.op("Squeeze", builder.op("Shape", z, start=0, end=1), builder.constant([0]))
    order = _steps(builder, time)
    if rec.reverse:
        order = builder.op("Sub", builder.op("Sub", time, builder.constant(1)), order)
        z = builder.op("Gather", z, order, axis=0)
    valid = None if lengths is None else _valid(builder, order, lengths)
    y, *finals = _scan(builder, rec, z, valid)
    if valid is not None:
        y = builder.op("Where", valid, y, builder.constant(0, rec.dtype.numpy()))
    if rec.reverse:
        y = builder.op("Gather", y, order, axis=0)  # the order backward is its own inverse
    return [builder.op("Transpose", y, perm=[1, 0, 2]), *finals]


def _steps(builder: Builder, time: ir.Value) -> ir.Value:
    return builder.op("Range", builder.constant(0), time, builder.constant(1))


def _valid(builder: Builder, order: ir.Value, lengths: ir.Value) -> ir.Value:
    """Boolean [time, batch, 1]: whether the step that is run as the t-th lies within its row."""
    column = builder.op("Unsqueeze", order, builder.constant([1]))
    row = builder.op("Unsqueeze", lengths, builder.constant([0]))
    return builder.op("Unsqueeze", builder.op("Less", column, row), builder.constant([2]))


def _scan(builder: Builder, rec: Recurrence, z: ir.Value, valid: ir.Value | None) -> list[ir.Value]:
    """[y [time, batch, size], *final states] of z [time, batch, z size]."""
    body = builder.nested()
    states = rec.state_inputs(body)
    z_t = body.input("z", rec.dtype, ("batch", None))
    scanned, inputs, keep = [z], [*states, z_t], None
    if valid is not None:
        keep = body.input("keep", ir.DataType.BOOL, ("batch", 1))
        scanned.append(valid)
        inputs.append(keep)
    y_t, *new = rec.take_step(body, [z_t], states, keep)
    y_t = body.op("Identity", y_t)  # its only use, see above
    graph = body.subgraph(inputs, [*new, y_t], "body")
    *finals, y = builder.ops("Scan", [*rec.states, *scanned], 1 + len(states), body=graph, num_scan_inputs=len(scanned))
    return [y, *finals]


def spell_out(model: ir.Model) -> None:
    """Write out a default that tract reads differently; in place, and the same for everybody else."""
    for node in model.graph:
        if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1, np.float32)))


def fold_constants(model: ir.Model) -> None:
    """Replace what depends on weights only by weights; in place."""
    for node in list(model.graph):
        if _constant(node):
            _fold(model.graph, node)


def _constant(node: ir.Node) -> bool:
    """Whether all inputs of ``node`` are initializers that callers cannot replace."""
    if node.domain or node.op_type in _RANDOM or any(isinstance(a.value, ir.Graph) for a in node.attributes.values()):
        return False
    given = [value for value in node.inputs if value is not None]
    fixed = all(value.const_value is not None and not value.is_graph_input() for value in given)
    return fixed and not any(value.is_graph_output() for value in node.outputs)


def _fold(graph: ir.Graph, node: ir.Node) -> None:
    feeds = {str(v.name): v.const_value.numpy() for v in node.inputs if v is not None and v.const_value is not None}
    arrays = [np.asarray(value) for value in ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)]
    size_bytes = sum(array.nbytes for array in arrays)
    if size_bytes > max(_LARGEST_GROWN_BYTES, sum(array.nbytes for array in feeds.values())):
        return
    for value, array in zip(node.outputs, arrays, strict=True):
        tensor = ir.tensor(np.ascontiguousarray(array), name=value.name)
        constant = ir.Value(
            name=value.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
        )
        value.name = f"{value.name}/folded"
        value.replace_all_uses_with(constant)
        graph.register_initializer(constant)
    graph.remove(node, safe=True)
