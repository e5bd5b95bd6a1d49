"""How long the rows of a batch are in what is recorded."""

from __future__ import annotations

import torch
from torch import Tensor

_GAPS = (0, 1, 3, 4, 8, 9, 13)
"""How much shorter than the longest each row is, by no rule that follows its number."""


def ends_of(rows: int, size: int, shorter: int | None) -> Tensor:
    """Lengths [rows] along an axis of ``size``: all full, or different ones, the longest by ``shorter`` less than that."""
    if shorter is None:
        return torch.full((rows,), size)
    less = torch.tensor([_GAPS[row % len(_GAPS)] + shorter for row in range(rows)])
    return (size - less).clamp(min=1)
