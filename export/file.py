"""Check a model and write it with its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from torch import nn

from rnncore.export.lowering.unique_names import make_names_unique
from rnncore.runtime.errors import ExportError, InputError
from rnncore.runtime.format.container import FINGERPRINT_KEY, replace_metadata, stamp
from rnncore.runtime.format.external_data import WEIGHTS_KEY, WeightsFile
from rnncore.runtime.format.signature import BLANK_FINGERPRINT

LARGEST_FILE = 1_900_000_000
"""Bytes of weights that go into the model file itself, at most: a protobuf message ends at 2 GiB."""

_STAYS_INSIDE = 1024
"""Tensors of fewer bytes stay in the model file: sizes and axes are among them, which shape inference reads."""


def weights_of(path: Path) -> Path:
    """The file beside ``path`` for weights that do not go into it."""
    return path.with_name(path.name + ".data")


def write_model(model: ir.Model, path: Path, *, external: bool = False) -> None:
    """Check ``model`` in full and write it to ``path`` with its fingerprint; ``external``: weights to a file beside it."""
    make_names_unique(model.graph)
    if external:
        file = weights_of(path)
        ir.external_data.unload_from_model(model, path.parent, file.name, size_threshold_bytes=_STAYS_INSIDE)
        model.metadata_props[WEIGHTS_KEY] = WeightsFile.of(file).to_json()
    proto = ir.to_proto(model)
    data = proto.SerializeToString()
    try:
        if external:  # the checker finds the weights by the path of the model only
            path.write_bytes(data)
            onnx.checker.check_model(path, full_check=True)
        else:
            onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportError(f"onnx.checker rejects the graph: {error}") from error
    path.write_bytes(stamp(data))


def check_size(module: nn.Module, external: bool | None, *, int8: bool) -> bool:
    """Whether the weights of ``module`` go to a second file; ``external`` is what the caller wants, None if it is all the same.

    Raises InputError when they must and cannot.
    """
    tensors = {tensor.data_ptr(): tensor for tensor in (*module.parameters(), *module.buffers())}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size <= LARGEST_FILE and not external:
        return False
    if external is False:
        raise InputError(
            f"the weights are {size / 1e9:.1f} GB, one ONNX file holds {LARGEST_FILE / 1e9:.1f}: leave external_data out, "
            "and they go to a second file beside it"
        )
    if int8:
        raise InputError(
            f"quantize='int8' starts from one float32 file of up to {LARGEST_FILE / 1e9:.1f} GB, these weights are "
            f"{size / 1e9:.1f} GB: "
            + ("leave external_data out" if size <= LARGEST_FILE else "export without quantize")
        )
    return True


def write_entries(path: Path, entries: Mapping[str, str]) -> None:
    """Set metadata entries of the file at ``path``; the graph, which was checked, stays as it is, byte for byte."""
    data = replace_metadata(path.read_bytes(), {**entries, FINGERPRINT_KEY: BLANK_FINGERPRINT})
    path.write_bytes(stamp(data))
