"""Python's numbers among tensors of float64 keep their precision: torch's exporter writes them in float32 first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.export import ExportedProgram


def numbers_of(program: ExportedProgram) -> dict[float, float]:
    """Python's numbers among the arguments of ``program``, by what float32 makes of them; those that it changes, if only one."""
    found: dict[float, set[float]] = {}
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for number in _numbers((node.args, node.kwargs)):
                    with np.errstate(over="ignore", under="ignore"):
                        found.setdefault(float(np.float32(number)), set()).add(number)
    return {rounded: number for rounded, (number, *others) in found.items() if not others and number != rounded}


def keep_wide(model: ir.Model, numbers: dict[float, float]) -> None:
    """Give numbers of float64 in ``model`` that float32 has rounded, alone or all over a tensor, their value of before."""
    if not numbers:
        return
    for value in list(model.graph.initializers.values()):
        exact = _exact(value.const_value, numbers)
        if exact is not None:
            value.const_value = exact
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "Constant" and "value" in node.attributes:
            exact = _exact(node.attributes["value"].as_tensor(), numbers)
            if exact is not None:
                node.attributes["value"] = ir.AttrTensor("value", exact)


def _exact(tensor: ir.TensorProtocol | None, numbers: dict[float, float]) -> ir.TensorProtocol | None:
    if tensor is None or tensor.dtype != ir.DataType.DOUBLE or not tensor.size:
        return None
    held = tensor.numpy()
    exact = numbers.get(float(held.flat[0]))
    if exact is None or (held != held.flat[0]).any():
        return None
    return ir.tensor(np.full(held.shape, exact, np.float64), name=tensor.name)


def _numbers(argument: Any) -> Iterator[float]:
    if isinstance(argument, float | int) and not isinstance(argument, bool):
        yield float(argument)
    elif isinstance(argument, tuple | list):
        for item in argument:
            yield from _numbers(item)
    elif isinstance(argument, dict):
        yield from _numbers(tuple(argument.values()))
