"""Activation functions by name.

``hard_sigmoid`` is PyTorch's and Keras 3's (slope 1/6); ``hard_sigmoid_keras2`` is Keras 2's and ONNX's default (slope 0.2).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from rnncore.runtime.errors import InputError

Activation = Callable[[Tensor], Tensor]


def hard_sigmoid_keras2(x: Tensor) -> Tensor:
    """``clip(0.2 x + 0.5, 0, 1)``."""
    return torch.clamp(0.2 * x + 0.5, 0.0, 1.0)


def identity(x: Tensor) -> Tensor:
    """``x``, Keras's "linear"."""
    return x


ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "hard_sigmoid": functional.hardsigmoid,
    "hard_sigmoid_keras2": hard_sigmoid_keras2,
    "hard_tanh": functional.hardtanh,
    "softsign": functional.softsign,
    "softplus": functional.softplus,
    "elu": functional.elu,
    "selu": functional.selu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "leaky_relu": functional.leaky_relu,
    "linear": identity,
}


def activation_by_name(name: str) -> Activation:
    """The function called ``name``; raises InputError that lists the known names."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise InputError(f"unknown activation {name!r}; known: {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]
