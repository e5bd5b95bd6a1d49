"""Pooling over one axis, and windows as wide as an axis, which torch computes with sizes as numbers of Python, so that a
trace would hold for those sizes only.

Pooling over two axes does not; the largest of all places of an axis is a reduction; and windows of bands over all frames
are those along the bands.
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
    """Spells ``max_pool1d``, and ``unfold`` over a whole axis, so that they can be traced with a free size."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _POOLS and not (kwargs or {}).get("return_indices"):
            return _max_pool(*args, **{name: v for name, v in (kwargs or {}).items() if name != "return_indices"})
        if func is F.unfold and args:
            windows = _along_the_other_axis(*args, **(kwargs or {}))
            return func(*args, **(kwargs or {})) if windows is None else windows
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


def _along_the_other_axis(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor | None:
    """``unfold`` [batch, channels * window, windows] whose window has all places of an axis of free size; None for others."""
    kernels, apart, more, steps = (_pair(value) for value in (kernel_size, dilation, padding, stride))
    whole = [axis for axis in (0, 1) if _is_whole(input, axis, kernels[axis], more[axis])]
    if input.dim() != 4 or len(whole) != 1:
        return None
    other = 1 - whole[0]
    kernel, reach = kernels[other], apart[other] * (kernels[other] - 1)
    padded = F.pad(input, (0, 0, more[0], more[0]) if other == 0 else (more[1], more[1]))
    windows = (padded.shape[2 + other] - reach - 1) // steps[other] + 1
    last = (windows - 1) * steps[other] + 1
    parts = [
        padded[(..., slice(start, start + last, steps[other])) + (slice(None),) * whole[0]]
        for start in range(0, reach + 1, apart[other])
    ]
    stacked = torch.stack(parts, 2)  # [batch, channels, kernel, and windows in place of the other axis]
    ordered = stacked.transpose(3, 4) if other == 0 else stacked.transpose(2, 3)
    return ordered.reshape(input.shape[0], input.shape[1] * kernel * input.shape[2 + whole[0]], windows)


def _is_whole(input: Tensor, axis: int, kernel: Any, padding: Any) -> bool:
    return isinstance(kernel, torch.SymInt) and padding == 0 and str(kernel) == str(input.shape[2 + axis])


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, Sequence) else (value, value)


def _number(value: Any) -> Any:
    return value[0] if isinstance(value, Sequence) else value
