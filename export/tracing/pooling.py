"""Pooling over one axis, which torch computes with its size as a number of Python, so that a trace would hold for that size only.

Over two axes it does not; and the largest of all places of an axis is a reduction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_POOLS = (F.max_pool1d, torch.max_pool1d)


class PoolsAnySize(TorchFunctionMode):
    """Spells ``max_pool1d`` so that it can be traced with a free size."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _POOLS and not (kwargs or {}).get("return_indices"):
            return _max_pool(*args, **{name: v for name, v in (kwargs or {}).items() if name != "return_indices"})
        return func(*args, **(kwargs or {}))


def _max_pool(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    kernel, more, apart = (_number(value) for value in (kernel_size, padding, dilation))
    step = kernel if stride is None or stride == [] else _number(stride)
    if isinstance(kernel, torch.SymInt) and str(kernel) == str(input.shape[-1]) and (more, apart) == (0, 1):
        return input.amax(-1, keepdim=True)
    row = input.unsqueeze(-2)
    return F.max_pool2d(row, (1, kernel), (1, step), (0, more), (1, apart), ceil_mode).squeeze(-2)


def _number(value: Any) -> Any:
    return value[0] if isinstance(value, Sequence) else value
