"""``torch.sparse.mm`` of a matrix that was sparse, and is dense in the copy that is traced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PLAIN = {torch.sparse.mm: torch.mm, torch.sparse.addmm: torch.addmm, torch.spmm: torch.mm, torch.smm: torch.mm}


class DenseProducts(TorchFunctionMode):
    """Products of dense matrices by the functions for those: torch's for sparse ones read sizes as numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = _PLAIN.get(func) if isinstance(func, type(torch.mm)) else None
        if plain is not None and all(not isinstance(arg, Tensor) or arg.layout == torch.strided for arg in args):
            func = plain
        return func(*args, **(kwargs or {}))
