"""Asked numbers only: an input and an output more, so that a caller need not copy a whole vocabulary out of a file."""

from __future__ import annotations

import onnx_ir as ir

from rnncore.export.graph.builder import Builder
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.signature import BATCH, PICKS, TIME, GatherOutput


def add_gather_output(graph: ir.Graph, states: set[str]) -> GatherOutput:
    """Add ``<output>.pick`` [batch, time, picks], the output's numbers at the indices ``<output>.at`` of its last axis.

    Who does not ask feeds zeros [batch, time, 1]; the runtime does so by itself.

    Args:
        graph: finished, with one output besides ``states``, its final states.

    Raises:
        ExportError: there are several outputs, or the one is not [batch, time, size] with a fixed size.
    """
    outputs = [value for value in graph.outputs if value.name not in states]
    if len(outputs) != 1:
        raise ExportError(f"pick=True needs a module with one output, this one has {len(outputs)}")
    (whole,) = outputs
    shape = None if whole.shape is None else [d if isinstance(d, int) else d.value for d in whole.shape]
    if shape is None or len(shape) != 3 or shape[:2] != [BATCH, TIME] or not isinstance(shape[2], int):
        raise ExportError(f"pick=True needs an output ['batch', 'time', size], '{whole.name}' is {shape}")
    at = ir.Value(
        name=f"{whole.name}.at",
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([BATCH, TIME, PICKS]),
    )
    graph.inputs.append(at)
    builder = Builder(str(whole.name), graph)
    picked = builder.op("GatherElements", whole, at, axis=2)
    picked.name = f"{whole.name}.pick"
    picked.type, picked.shape = whole.type, ir.Shape([BATCH, TIME, PICKS])
    graph.extend(builder.nodes)
    graph.outputs.append(picked)
    return GatherOutput(str(whole.name), str(at.name), str(picked.name))
