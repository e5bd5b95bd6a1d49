"""Tidy a spliced graph: nothing unused, every name meaningful, nothing of the build left in it."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass
from torch import nn

from rnncore.cells import GatedCell


def clean_up(model: ir.Model, module: nn.Module) -> None:
    """Drop dead nodes and build-time metadata, name weights after the parameters they hold; in place."""
    RemoveUnusedNodesPass()(model)
    RemoveUnusedOpsetsPass()(model)
    _name_weights(model.graph, module)
    model.graph.name = type(module).__name__
    ClearMetadataAndDocStringPass()(model)
    computed = [value for node in ir.traversal.RecursiveGraphIterator(model.graph) for value in node.outputs]
    for value in [*model.graph.inputs, *model.graph.initializers.values(), *computed]:
        value.metadata_props.clear()  # the pass clears those of nodes and graphs


def _name_weights(graph: ir.Graph, module: nn.Module) -> None:
    """Constant folding leaves names like ``val_3``: give such a tensor its parameter's path, ``.T`` if transposed.

    The sum of the two biases of a cell, which is folded as well, is ``<path>.bias_ih+bias_hh``.
    """
    known: dict[tuple[tuple[int, ...], bytes], str] = {}
    for name, parameter in module.named_parameters():
        array = parameter.detach().cpu().numpy() if parameter.dtype.is_floating_point else None
        if array is not None and array.size > 1:
            known.setdefault(_key(array), name)
            if array.ndim == 2:
                known.setdefault(_key(array.T), f"{name}.T")
    for path, cell in module.named_modules():
        bias = cell.summed_bias() if isinstance(cell, GatedCell) else None
        if bias is not None:
            known.setdefault(_key(bias.detach().cpu().numpy()), f"{path}.bias_ih+bias_hh")
    taken = set(graph.initializers)
    for value in list(graph.initializers.values()):
        if value.const_value is None or str(value.name).startswith("const/"):
            continue
        path = known.get(_key(value.const_value.numpy()))
        if path is not None and path not in taken:
            value.name = path
            taken.add(path)


def _key(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """Shape and a digest of the values."""
    return array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
