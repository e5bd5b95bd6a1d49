"""Slices of tensors as torch's operators, all of them: of ``x[:n]`` torch itself leaves out the one where ``n`` is all there is.

Rows of different lengths are then read by the same operations, whether one of them is full or not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def sliced(func: Any, args: Sequence[Any]) -> tuple[Any] | None:
    """What ``x[...]``, or ``x[...] = y``, of whole numbers and slices gives, in a tuple; None for any other call."""
    if func not in (Tensor.__getitem__, Tensor.__setitem__):
        return None
    part = _view(args[0], args[1] if isinstance(args[1], tuple) else (args[1],))
    if part is None:
        return None
    if func is Tensor.__getitem__:
        return (part,)
    value = args[2]
    if isinstance(value, Tensor):
        part.copy_(value)
    else:
        part.fill_(value)
    return (None,)


def _view(x: Tensor, items: Sequence[Any]) -> Tensor | None:
    if not all(item is None or item is ... or isinstance(item, slice) or _is_number(item) for item in items):
        return None
    if not any(isinstance(item, slice) and item.stop is not None for item in items):
        return None
    dim = 0
    for n, item in enumerate(items):
        if item is ...:
            dim = x.dim() - sum(other is not None for other in items[n + 1 :])
        elif item is None:
            x, dim = x.unsqueeze(dim), dim + 1
        elif isinstance(item, slice):
            if item != slice(None):
                start, stop, step = (None if end is None else index(end) for end in (item.start, item.stop, item.step))
                x = aten.slice.Tensor(x, dim, start or 0, sys.maxsize if stop is None else stop, step or 1)
            dim += 1
        else:
            x = aten.select.int(x, dim, index(item))
    return x


def _is_number(item: Any) -> bool:
    if isinstance(item, Tensor):
        return not item.dim() and not item.is_floating_point() and item.dtype != torch.bool
    return isinstance(item, int) and not isinstance(item, bool)
