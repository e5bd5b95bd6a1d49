"""Inputs that say which steps of a row are there: ones along the steps and zeros behind them, of any dtype."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def filling_of(name: str, value: Tensor, inputs: Mapping[str, Tensor]) -> int | None:
    """What a mask holds where a row has steps, 1 or 0; None if input ``name`` is no mask.

    A mask of zeros and ones is named one, and its rows begin with what they hold; one of nothing but ones may have another
    name, if it stands beside ids of its shape.  One of floats has a number for each step: with more, such as those of values
    that were measured or missed, it is an input like others, and zeros may be what is added to scores.
    """
    if value.dim() < 2 or not value.numel() or value.is_complex():
        return None
    floats = value.is_floating_point()
    if floats and ("mask" not in name.lower() or value.shape[1:].numel() != max(value.shape[1:])):
        return None
    held = value.detach().to(torch.int64)
    if bool((value != held.bool()).any()):
        return None
    constant = bool((held == held.flatten()[0]).all())
    if "mask" not in name.lower():
        beside = [other for other in inputs.values() if other.shape == value.shape and _are_ids(other)]
        return 1 if constant and bool(held.all()) and value.dtype != torch.bool and beside else None
    if constant:
        return None if floats and not held.any() else int(held.flatten()[0])
    falls = held.diff(dim=-1)
    if bool((falls <= 0).all()):
        return 1
    return (
        0 if bool((falls >= 0).all()) and not floats and (value.dtype == torch.bool or "pad" in name.lower()) else None
    )


def masked_behind(mask: Tensor, counts: Tensor, filling: int, batch_axis: int, steps_axis: int) -> Tensor:
    """``mask`` whose rows have ``counts`` [batch] steps."""
    steps = torch.arange(mask.shape[steps_axis], device=mask.device)
    along = [1] * mask.dim()
    along[steps_axis] = -1
    rows = [1] * mask.dim()
    rows[batch_axis] = -1
    there = steps.view(along) < counts.to(mask.device).view(rows)
    return (there if filling else ~there).expand(mask.shape).to(mask.dtype)


def _are_ids(value: Tensor) -> bool:
    whole = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    return whole and bool((value != value.flatten()[0]).any())
