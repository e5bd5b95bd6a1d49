"""PyTorch to ONNX with explicit loops: ``export`` writes one verified file that :mod:`rnncore.runtime` runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnncore.export.exporter import ExportReport, export
    from rnncore.export.generation.generator import GeneratorReport, export_generator
    from rnncore.export.generation.translator import TranslatorReport, export_translator
    from rnncore.export.loops.forms import Form
    from rnncore.export.tasks import export_model

__all__ = [
    "ExportReport",
    "Form",
    "GeneratorReport",
    "TranslatorReport",
    "export",
    "export_generator",
    "export_model",
    "export_translator",
]

_HOME = {
    "ExportReport": "exporter",
    "Form": "loops.forms",
    "GeneratorReport": "generation.generator",
    "TranslatorReport": "generation.translator",
    "export": "exporter",
    "export_generator": "generation.generator",
    "export_model": "tasks",
    "export_translator": "generation.translator",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rnncore.export' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"rnncore.export.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "onnx", "onnx_ir", "onnxscript"):
            raise
        from rnncore.runtime.errors import MissingExtraError

        raise MissingExtraError(str(error.name), "export", f"rnncore.export.{name}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
