"""Operators that a recording treats each in a way of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
READS = (aten._local_scalar_dense.default, aten.item.default, aten.nonzero.default, aten.masked_select.default)
RESHAPES = (aten.view.default, aten._unsafe_view.default, aten.reshape.default)
LARGEST = (aten.max.default, aten.amax.default)
COPIES = (aten._to_copy.default, aten.clone.default, aten.alias.default, aten.detach.default)
OF_PACKED = (aten.slice.Tensor, aten.slice_scatter.default, aten.split_with_sizes.default)
SETTLING = ("clamp_", "clamp_min_", "clamp_max_", "clip_", "relu_")
"""What may be done to a weight in place: done twice it is done once."""
NUMBERS = (torch.int64, torch.int32, torch.float32, torch.float64)
PLACES = ("device", "layout", "pin_memory")
FILLED: dict[Any, Callable[[tuple[Any, ...]], Any]] = {
    **dict.fromkeys((aten.new_zeros.default, aten.zeros_like.default, aten.zeros.default), lambda values: 0.0),
    **dict.fromkeys((aten.new_ones.default, aten.ones_like.default, aten.ones.default), lambda values: 1.0),
    aten.new_full.default: lambda values: values[2],
    aten.full_like.default: lambda values: values[1],
}
_SAME = (aten.alias.default, aten.detach.default, aten.lift_fresh.default)


def same_as(func: Any, args: Any, result: Any, *, ends: bool = False) -> int | None:
    """Which argument ``result`` equals whatever the sizes are; ``ends``: a slice that ends at a number is none of these."""
    if func in _SAME:
        return 0
    if func is aten.slice.Tensor and _is_whole(args[2:]) and not (ends and _ends(args[2:], args[0].shape[args[1]])):
        return 0
    if (
        func is aten.slice_scatter.default
        and _is_whole(args[3:])
        and not (ends and _ends(args[3:], args[0].shape[args[2]]))
    ):
        return 1
    if func is aten.copy.default and args[1].shape == result.shape and args[1].dtype == result.dtype:
        return 1
    return 0 if func is aten.expand.default and args[0].shape == result.shape else None


def _is_whole(extent: Any) -> bool:
    given = dict(enumerate(extent))
    start, end, step = given.get(0), given.get(1), given.get(2, 1)
    return start in (None, 0) and (end is None or end >= 2**62) and step == 1


def _ends(extent: Any, size: int) -> bool:
    return bool(extent[1:2] == (size,))
