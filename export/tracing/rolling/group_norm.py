"""``group_norm`` as what it computes: run for all steps of a loop at once, torch's own would read the batch as a number."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """What ``F.group_norm`` gives; ``input`` is [batch, channels, ...]."""
    apart = input.unflatten(1, (num_groups, input.shape[1] // num_groups)).flatten(2)
    if isinstance(apart.shape[2], int):
        normed = F.layer_norm(apart, apart.shape[2:], eps=eps)
    else:  # the size of an image, which nobody knows
        centred = apart - apart.mean(2, keepdim=True)
        normed = centred * torch.rsqrt(centred.square().mean(2, keepdim=True) + eps)
    result = normed.reshape(input.shape)
    shape = (-1, *(1,) * (input.dim() - 2))
    if weight is not None:
        result = result * weight.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)
