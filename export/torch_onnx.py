"""torch's exporter, called quietly, with its failures turned into errors a user can act on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset20 as op
from torch import nn

from rnncore.runtime.errors import ExportError, RnncoreError

OPSET = 20


def _log_sigmoid(x: Any) -> Any:
    """min(x, 0) + log(sigmoid(|x|)): torch writes log(sigmoid(x)), -inf below -104 and NaN once two are subtracted."""
    return op.Sub(op.Log(op.Sigmoid(op.Abs(x))), op.Relu(op.Neg(x)))


TRANSLATIONS: dict[Any, Any] = {torch.ops.aten.log_sigmoid.default: _log_sigmoid}
"""Operators that torch translates into something else than it computes."""


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress lines, no deprecation warnings of torch about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def to_onnx(
    module: nn.Module, arguments: tuple[Any, ...], dynamic_shapes: Any, *, what: str, opset: int = OPSET
) -> ir.Model:
    """``module`` as an ONNX model in memory.

    Args:
        module: in eval mode.
        arguments: example call; dynamic sizes must not be 0 or 1.
        dynamic_shapes: as for ``torch.export.export``.
        what: how to call the module in an error.
        opset: ONNX opset version.

    Raises:
        ExportError: torch cannot trace it; the message carries torch's own first lines and what to try.
    """
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(module, arguments, dynamic_shapes=dynamic_shapes, strict=False)
        except RnncoreError:
            raise
        except Exception as error:
            raise ExportError(_explain(error, what)) from error
        try:
            result = torch.onnx.export(
                program, dynamo=True, verbose=False, opset_version=opset, custom_translation_table=TRANSLATIONS
            )
        except Exception as error:
            raise ExportError(f"torch.onnx cannot write {what}: {_first_lines(error)}") from error
    assert result is not None
    return result.model


def _explain(error: Exception, what: str) -> str:
    text = _first_lines(error)
    message = f"torch.export cannot trace {what}: {text}"
    if "Constraints violated" in str(error) or "specialized" in str(error) or "marked" in str(error):
        message += (
            "\n  The code fixes an axis that must stay free (a size read as a Python number, a loop over time, a reshape "
            "with literal sizes). Use tensor operations, or wrap a loop over time in rnncore.Recurrent with a Cell."
        )
    return message


def _first_lines(error: Exception, lines: int = 6) -> str:
    return "\n  ".join(line for line in str(error).strip().splitlines()[:lines] if line.strip()) or type(error).__name__
