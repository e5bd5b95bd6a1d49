"""Whole numbers that code counts out with torch: ``torch.arange(2, x.dim()).tolist()``.

While torch traces, such a tensor has no values and reading it fails, though no input has a part in them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

_MOST = 16  # longer ones are positions in something, and no list of axes


class CountedNumbers(TorchFunctionMode):
    """Lets ``torch.arange`` of a few known whole numbers hold them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        counted = func is torch.arange and not kwargs and all(type(n) is int for n in args)
        if not counted or len(range(*args)) > _MOST:
            return func(*args, **(kwargs or {}))
        with unset_fake_temporarily(), _disable_current_modes():
            return torch.arange(*args)
