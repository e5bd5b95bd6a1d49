"""Inputs and outputs of a graph that is written by hand, from the ports of its signature."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rnncore.runtime.format.signature import TensorSpec


def data_type(dtype: str) -> ir.DataType:
    """ONNX's name of a numpy dtype."""
    return ir.DataType.from_numpy(np.dtype(dtype))


def value_of(port: TensorSpec) -> ir.Value:
    """A value with the name, dtype and shape of ``port``."""
    return ir.Value(name=port.name, type=ir.TensorType(data_type(port.dtype)), shape=ir.Shape(port.shape))


def finish_outputs(graph: ir.Graph, ports: tuple[TensorSpec, ...], values: list[ir.Value]) -> None:
    """Make ``values`` the outputs of ``graph``, named and typed as ``ports`` say."""
    for port, value in zip(ports, values, strict=True):
        like = value_of(port)
        value.name, value.type, value.shape = port.name, like.type, like.shape
    graph.outputs.extend(values)
