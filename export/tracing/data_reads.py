"""``tensor.data``: how code from before ``detach`` reads and changes values."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_READ = torch.Tensor.data.__get__  # type: ignore[attr-defined]


class DataReads(TorchFunctionMode):
    """``tensor.data`` is ``tensor.detach()``, which shares its memory as well: torch loses a trace where it meets the former."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _READ:
            return args[0].detach()
        return func(*args, **(kwargs or {}))
