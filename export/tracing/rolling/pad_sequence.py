"""``pad_sequence`` as what it computes: inside of torch it writes rows into a new tensor, which a recording loses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """What ``torch.nn.utils.rnn.pad_sequence`` gives; ``sequences`` are [steps, ...] each."""
    longest = max(value.shape[0] for value in sequences)
    differ = any(value.shape[0] != longest for value in sequences)  # then all alike, as turns of one loop
    rows = []
    for value in sequences:
        less = longest - value.shape[0]
        ends = [0, less] if padding_side == "right" else [less, 0]
        rows.append(F.pad(value, [*[0, 0] * (value.dim() - 1), *ends], value=padding_value) if differ else value)
    return torch.stack(rows, 0 if batch_first else 1)
