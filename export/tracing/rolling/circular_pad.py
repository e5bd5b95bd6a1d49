"""Circular padding as slices and a concatenation: inside of torch it writes parts of a new tensor, which a recording loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def circular(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """What ``F.pad(x, pad, mode="circular")`` gives; None for any other call, and for padding that takes away."""
    if func is not F.pad:
        return None
    given = {**dict(zip(("input", "pad", "mode", "value"), args, strict=False)), **kwargs}
    pad = list(given["pad"])
    if given.get("mode") != "circular" or any(not isinstance(size, int) or size < 0 for size in pad):
        return None
    x: Tensor = given["input"]
    for number, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim, size = x.dim() - 1 - number, x.shape[-1 - number]
        if max(before, after) > size:
            return None  # torch says what is wrong
        ends = [x.narrow(dim, size - before, before)] if before else []
        begins = [x.narrow(dim, 0, after)] if after else []
        x = torch.cat([*ends, x, *begins], dim) if ends or begins else x
    return x
