"""Write a model file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file in the folder of ``path`` that takes its place if the block ends well, and vanishes if not."""
    if not path.parent.is_dir():
        raise ExportError(f"the folder {path.parent} does not exist; create it first")
    handle, name = tempfile.mkstemp(suffix=".onnx", prefix=f".{path.stem}-", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
