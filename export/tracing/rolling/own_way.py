"""Rules for sizes that are found with short sequences, and hold for those of the example, or do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnncore.export.tracing.example import Example
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import leaves
from rnncore.export.tracing.rolling.merging import Program
from rnncore.export.tracing.rolling.settled import agree
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.axes import TIME

_OTHER_WAY = "sizes follow the number of steps by rules that hold for short sequences only"
_FAR = 1e-3
"""Answers that differ by more than this part of their largest number are no matter of rounding."""


def has_rests(program: Program) -> bool:
    """Whether a number of a program is what is missing up to a multiple, or the like."""
    statements = [*program.statements, *(s for block in program.blocks for s in block.statements)]
    return any(isinstance(v, Formula) and v.has_quotient for s in statements for v in leaves(s.arguments))


def own_steps(example: Example) -> int:
    """Steps of the example; 1 if it has none."""
    return max(
        (n for i in example.inputs for axis, n in zip(i.axes, i.value.shape, strict=True) if axis == TIME), default=1
    )


def check_own_way(module: nn.Module, rolled: nn.Module, example: Example, seed: int) -> None:
    """Raise ExportError where short sequences, at which rules for sizes were found, go another way than those of the example."""
    tensors = example.like_itself(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        try:
            wanted, got = ([v for _, v in named_tensors(example.call(m, tensors), "")] for m in (module, rolled))
        except Exception as error:
            pass_on_interruption(error)
            raise ExportError(_OTHER_WAY) from error
    if not agree(got, wanted):
        raise ExportError(_OTHER_WAY)


def check_not_far(module: nn.Module, rolled: nn.Module, example: Example, seed: int) -> None:
    """Raise ExportError where ``rolled`` answers something else altogether at the sizes of the example.

    So does what was found where a layer over frames had one frame only, however many steps were tried.
    """
    tensors = example.like_itself(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        try:
            wanted, got = ([v for _, v in named_tensors(example.call(m, tensors), "")] for m in (module, rolled))
        except Exception as error:  # which is said elsewhere
            pass_on_interruption(error)
            return
    if any(_far_apart(a, b) for a, b in zip(got, wanted, strict=False)):
        raise ExportError(_OTHER_WAY)


def _far_apart(got: Tensor, wanted: Tensor) -> bool:
    if got.shape != wanted.shape or not wanted.numel() or not wanted.is_floating_point():
        return got.shape != wanted.shape
    known = wanted.isfinite() & got.isfinite()
    error = (got.double() - wanted.double()).abs()[known]
    return bool(error.numel()) and bool(error.max() > _FAR * wanted.double().abs()[known].max().clamp(min=1e-3))
