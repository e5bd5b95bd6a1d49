"""Files in onnxruntime's own format (``.ort``) as ONNX again: onnxruntime reads them and writes what it has read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime

from rnncore.runtime.errors import NotOnnxError
from rnncore.runtime.format.external_data import WEIGHTS_KEY
from rnncore.runtime.session.failures import of_runtime, readable

_FATAL_ONLY = 4


def onnx_of(data: bytes) -> bytes:
    """The ONNX model of a file in onnxruntime's own format, with its metadata, and all weights inside.

    Operators that onnxruntime has joined stay joined.  Such a file does not keep the names of branches and loop bodies, and
    ONNX wants some: each is called by its node.

    Raises:
        NotOnnxError: onnxruntime cannot read it.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry("session.load_model_format", "ORT")
    options.add_session_config_entry("session.save_model_format", "ONNX")
    with tempfile.TemporaryDirectory(prefix="rnncore-") as folder:
        written = Path(folder) / "model.onnx"
        options.optimized_model_filepath = str(written)
        try:
            onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            if not of_runtime(error):
                raise
            raise NotOnnxError(
                f"the file has onnxruntime's own format (.ort), which onnxruntime {onnxruntime.__version__} cannot read: "
                f"{readable(error)}"
            ) from error
        model = onnx.load(written)
    entries = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != WEIGHTS_KEY]
    del model.metadata_props[:]
    for key, value in entries:
        model.metadata_props.add(key=key, value=value)
    for number, (node, attribute) in enumerate(_inner_graphs(model.graph)):
        attribute.g.name = attribute.g.name or f"{node.name or node.op_type}.{attribute.name}.{number}"
    return model.SerializeToString()


def _inner_graphs(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, onnx.AttributeProto]]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield node, attribute
                yield from _inner_graphs(attribute.g)
