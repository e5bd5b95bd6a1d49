"""Narrow floats that forward computes in and a file cannot."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import ExportedProgram

from rnncore.export.tracing.source_lines import line_of_node
from rnncore.runtime.errors import ExportError

NO_KERNELS = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
"""What onnxruntime has no CPU kernels for."""


def refuse_bfloat16(program: ExportedProgram) -> None:
    """Raise ExportError, with the line, where ``program`` computes in floats that onnxruntime has no CPU kernels for."""
    graphs = [part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    for node in (node for part in graphs for node in part.graph.nodes):
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, Tensor) and value.dtype in NO_KERNELS:
            line = line_of_node(node)
            raise ExportError(
                f"forward computes in {str(value.dtype).removeprefix('torch.')}{f' ({line})' if line else ''}, for which "
                "onnxruntime has no CPU kernels: leave out autocast or the cast there for the export"
            )
