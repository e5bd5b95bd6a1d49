"""Dropout over a sequence: anew at every step, or the same features all along it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def dropout(y: Tensor, rate: float, training: bool, *, variational: bool = False) -> Tensor:
    """``y`` [batch, time, features] with features zeroed by probability ``rate`` and the others scaled, while ``training``.

    variational: a row loses the same features at all of its steps, "A Theoretically Grounded Application of Dropout in
    Recurrent Neural Networks" (Gal and Ghahramani, 2016), which keeps a recurrent layer from seeing through the noise by
    waiting a step.
    """
    if not variational or not training or not rate:
        return functional.dropout(y, rate, training)
    return y * functional.dropout(y.new_ones(y.shape[0], 1, y.shape[2]), rate)
