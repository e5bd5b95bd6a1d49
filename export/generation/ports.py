"""Inputs and outputs of a graph that is written by hand, from the ports of its signature."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rnncore.runtime.files.signature import Port


def data_type(dtype: str) -> ir.DataType:
    """ONNX's name of a numpy dtype."""
    return ir.DataType.from_numpy(np.dtype(dtype))


def value_of(port: Port) -> ir.Value:
    """A value with the name, dtype and shape of ``port``."""
    return ir.Value(name=port.name, type=ir.TensorType(data_type(port.dtype)), shape=ir.Shape(port.shape))


def finish_outputs(graph: ir.Graph, ports: tuple[Port, ...], values: list[ir.Value]) -> None:
    """Make ``values`` the outputs of ``graph``, named and typed as ``ports`` say."""
    for port, value in zip(ports, values, strict=True):
        like = value_of(port)
        value.name, value.type, value.shape = port.name, like.type, like.shape
    graph.outputs.extend(values)


def set_default(graph: ir.Graph, value: ir.Value, default: np.ndarray) -> None:
    """Make an input optional.  Its free axes lose their names: the default has one row where others have a batch, and
    onnxruntime gives values whose axes have equal names one buffer.
    """
    assert value.shape is not None
    value.const_value = ir.tensor(default, name=value.name)
    value.shape = ir.Shape([n if isinstance(n, int) else f"{value.name}_{i}" for i, n in enumerate(value.shape)])
    graph.register_initializer(value)
