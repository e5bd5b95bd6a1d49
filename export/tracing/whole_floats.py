"""Floats that hold whole numbers, as ids among features do (``x[..., 3].long()``): drawn as whole numbers again."""

from __future__ import annotations

import torch
from torch import Tensor

_FEWEST = 3  # different numbers; two may be a mask, and one is what people fill an example with


def with_whole_numbers(drawn: Tensor, example: Tensor, generator: torch.Generator, *, by_feature: bool) -> Tensor:
    """``drawn``, random floats like ``example``, with whole numbers from its range where it holds nothing else.

    by_feature: each entry along the last axis, which is as long as that of the example, is asked by itself.
    """
    own = example.detach().cpu()
    columns = own.reshape(-1, own.shape[-1]) if by_feature else own.reshape(-1, 1)
    if not columns.shape[0] or not bool(torch.isfinite(columns).all()):
        return drawn
    whole = [k for k in range(columns.shape[1]) if _are_whole(columns[:, k])]
    if not whole:
        return drawn
    result = drawn.clone(memory_format=torch.contiguous_format)
    flat = result.view(-1, columns.shape[1])
    for k in whole:
        low, high = int(columns[:, k].min()), int(columns[:, k].max())
        flat[:, k] = torch.randint(low, high + 1, (flat.shape[0],), generator=generator).to(drawn.dtype)
    return result


def _are_whole(numbers: Tensor) -> bool:
    return bool((numbers >= 0).all()) and torch.equal(numbers, numbers.floor()) and len(numbers.unique()) >= _FEWEST
