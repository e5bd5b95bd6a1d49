"""Check a model and write it with its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from rnncore.runtime.errors import ExportError
from rnncore.runtime.files.container import FINGERPRINT_KEY, replace_metadata, stamp
from rnncore.runtime.files.signature import BLANK_FINGERPRINT


def write_model(model: ir.Model, path: Path) -> None:
    """Check ``model`` in full and write it to ``path`` with its fingerprint."""
    proto = ir.to_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportError(f"onnx.checker rejects the graph: {error}") from error
    path.write_bytes(stamp(proto.SerializeToString()))


def write_entries(path: Path, entries: Mapping[str, str]) -> None:
    """Set metadata entries of the file at ``path``; the graph, which was checked, stays as it is, byte for byte."""
    data = replace_metadata(path.read_bytes(), {**entries, FINGERPRINT_KEY: BLANK_FINGERPRINT})
    path.write_bytes(stamp(data))
