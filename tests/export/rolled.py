"""Modules through the pass that rolls loops, without the rest of an export; and whole exports at sizes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnncore.conversion import convert_plain_layers
from rnncore.export import ExportReport, export
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.copying import copied
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.operators import find_operators
from rnncore.export.tracing.rolling.program import RolledProgram, roll
from rnncore.runtime import Model, load
from tests.tolerances import fixed

TOLERANCE = {"rtol": 0, "atol": fixed("float32")}


def rolled(module: nn.Module, example: Any) -> RolledProgram | None:
    """``module`` as a program; None if there is nothing in it that follows a size."""
    module.eval()
    call = find_axes(module, Example.of(module, example, None, "auto"), None)
    plain = convert_plain_layers(copied(module))
    return roll(plain, call, find_operators(plain, call, 0), 0)


def exported(
    module: nn.Module, folder: Path, example: Any, draw: Callable[[int, int], Tensor], sizes: Sequence[tuple[int, int]]
) -> tuple[Model, ExportReport]:
    """``module`` exported by the README's call, and compared with PyTorch at ``sizes``."""
    report = export(module.eval(), folder / "model.onnx", example)
    model = load(report.path)
    for batch, time in sizes:
        x = draw(batch, time)
        with torch.no_grad():
            wanted = module(x)
        np.testing.assert_allclose(model.run(x.numpy()), wanted.numpy(), **TOLERANCE, err_msg=f"at {batch}, {time}")
    return model, report


def streamed(model: Model, x: Tensor, chunks: Sequence[int]) -> np.ndarray:
    """One row [time, ...] through a stream, in chunks of these sizes."""
    with model.stream() as stream:
        return np.concatenate([stream.push(part.numpy()) for part in x.split(list(chunks))])
