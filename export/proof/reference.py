"""The user's module as the reference: what the exported file must answer."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rnncore.export.capture.example import Example
from rnncore.export.capture.nesting import named_tensors
from rnncore.runtime.files.comparison import error as error  # the measure that goes with TOLERANCE

Array = np.ndarray

TOLERANCE = {"float32": 1e-4, "float64": 1e-7, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest error against PyTorch, as a part of the largest output (at least 1), by dtype of the weights.

Rounding differs between two correct float32 backends by about 1e-7 a step and grows with depth and length; a wrong gate,
a lost reversal or a frozen length is off by more than 1e-2.  In float64 what differs most is the epsilon of ONNX's
LayerNormalization, which is a float32 (1.6e-9 seen on a layer-normed LSTM).  Where a model amplifies rounding (a relu
RNN that explodes), float64 decides: see :func:`Reference.excuses`.
"""
CHAOS = 20.0  # how much worse than PyTorch's own float32 error the file may be where float64 decides


class Reference:
    """Runs the module as it was before export: eval mode, no gradients, on its own device."""

    def __init__(self, module: nn.Module, example: Example) -> None:
        self._module = module
        self._example = example
        self._double: nn.Module | None = None

    def __call__(self, tensors: Sequence[Tensor]) -> list[Array]:
        """All outputs in the order of the signature."""
        with torch.no_grad():
            return _arrays(self._example.call(self._module, tensors))

    def failure(self, tensors: Sequence[Tensor]) -> str:
        """Why the module cannot run on ``tensors`` (too few steps for a convolution, say), empty if it can."""
        try:
            self(tensors)
        except Exception as failure:
            return first_line(failure)
        return ""

    def excuses(self, tensors: Sequence[Tensor], got: Sequence[Array], expected: Sequence[Array]) -> bool:
        """True when PyTorch's own rounding error explains a difference: float64 is about as far from both."""
        try:
            if self._double is None:
                self._double = copy.deepcopy(self._module).double()
            wide = [t.double() if t.is_floating_point() else t for t in tensors]
            with torch.no_grad():
                exact = _arrays(self._example.call(self._double, wide))
        except (RuntimeError, TypeError):
            return False  # the module cannot run in float64, so nothing can excuse it
        return all(error(g, x)[0] <= CHAOS * error(e, x)[0] for g, e, x in zip(got, expected, exact, strict=True))


def first_line(failure: Exception) -> str:
    """What an exception says, in one line."""
    return str(failure).strip().partition("\n")[0] or type(failure).__name__


def _arrays(outputs: object) -> list[Array]:
    return [_array(value) for _, value in named_tensors(outputs, "")]


def _array(value: Tensor) -> Array:
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
