"""``tensor.data`` and ``copy.deepcopy(tensor)``: how code from before ``detach`` and ``clone`` reads and changes values."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_READ = torch.Tensor.data.__get__  # type: ignore[attr-defined]


class DataReads(TorchFunctionMode):
    """``tensor.data`` is ``tensor.detach()``, which shares its memory as well: torch loses a trace where it meets the former.

    A copy by ``copy.deepcopy``, of which a trace has no memory to take, is a clone.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _READ:
            return args[0].detach()
        if func == torch.Tensor.__deepcopy__ and not isinstance(args[0], torch.nn.Parameter):
            return args[1].setdefault(id(args[0]), args[0].clone())
        return func(*args, **(kwargs or {}))
