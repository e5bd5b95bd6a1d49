"""PyTorch to ONNX with explicit loops: ``export`` writes one verified file that :mod:`rnncore.runtime` runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnncore.export.adapting import AdaptReport, adapt
    from rnncore.export.decoding.generator import GeneratorReport, export_generator
    from rnncore.export.decoding.translator import TranslatorReport, export_translator
    from rnncore.export.exporter import export
    from rnncore.export.lowering.forms import Form
    from rnncore.export.quantizing import QuantizeReport, quantize
    from rnncore.export.report import ExportReport
    from rnncore.export.tasks import export_model

__all__ = [
    "AdaptReport",
    "ExportReport",
    "Form",
    "GeneratorReport",
    "QuantizeReport",
    "TranslatorReport",
    "adapt",
    "export",
    "export_generator",
    "export_model",
    "export_translator",
    "quantize",
]

_HOME = {
    "AdaptReport": "adapting",
    "adapt": "adapting",
    "ExportReport": "report",
    "Form": "lowering.forms",
    "QuantizeReport": "quantizing",
    "quantize": "quantizing",
    "GeneratorReport": "decoding.generator",
    "TranslatorReport": "decoding.translator",
    "export": "exporter",
    "export_generator": "decoding.generator",
    "export_model": "tasks",
    "export_translator": "decoding.translator",
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
