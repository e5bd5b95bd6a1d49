"""Check a model and write it with its fingerprint."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from rnncore.runtime.container import stamp
from rnncore.runtime.errors import ExportError


def write_model(model: ir.Model, path: Path) -> None:
    """Check ``model`` in full and write it to ``path`` with its fingerprint."""
    proto = ir.to_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportError(f"onnx.checker rejects the graph: {error}") from error
    path.write_bytes(stamp(proto.SerializeToString()))
