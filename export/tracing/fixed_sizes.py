"""Where forward turns a free size into a number: the line, for a refusal that torch writes without one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rnncore.export.tracing.callers import user_lines


class FixedSizes(TorchFunctionMode):
    """Looks after every call of torch's functions which free sizes have become numbers meanwhile.

    lines: the line that was running then, by the number; of code between two calls it is that of the second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[int, str] = {}
        self._free: dict[Any, Any] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._look()
        self._note(args)
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._look()

    def _note(self, args: Any) -> None:
        for value in args:
            if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
                for size in value.shape:
                    if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                        self._free.setdefault(size.node.expr, size.node.shape_env)

    def _look(self) -> None:
        for symbol, known in list(self._free.items()):
            found = known.replacements.get(symbol)
            if found is not None and found.is_number:
                del self._free[symbol]
                lines = user_lines(3)
                if lines:
                    self.lines.setdefault(int(found), str(lines[-1]))
