"""Whether a module computes with complex numbers, which a file writes as two real ones each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.copying import copied
from rnncore.runtime.error_boundary import pass_on_interruption


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen |= isinstance(result, Tensor) and result.is_complex()
        return result


def uses_complex_numbers(model: nn.Module, example: Any) -> bool:
    """Whether ``model`` computes any on its example, as far as it comes."""
    watch, module = _Watch(), copied(model).eval()
    try:
        bound = bind(module, example)
        with torch.no_grad(), watch:
            module(*bound.args, **bound.kwargs)
    except Exception as failure:  # which is said elsewhere
        pass_on_interruption(failure)
    return watch.seen
