"""One-hot rows as torch computes them behind its checks: those look at the ids themselves, which a recording cannot."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor | None:
    """[..., num_classes] of 0 and 1, int64; None where the ids decide how many classes there are.

    The classes are entries that are written to: so they are a limit of the ids in the file, as rows of a table are.
    """
    if num_classes <= 0:
        return None
    zeros = torch.zeros(*tensor.shape, num_classes, dtype=torch.int64, device=tensor.device)
    return zeros.scatter(-1, tensor.unsqueeze(-1), torch.ones_like(tensor).unsqueeze(-1))
