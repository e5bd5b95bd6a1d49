"""``tensor.numpy()`` of what only goes out: attention weights beside the answer, kept for a picture.

A file gives tensors; what is an array in the module's result is left out.  Code that computes with one is refused by its line.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch.overrides import TorchFunctionMode

from rnncore.export.tracing.callers import user_lines
from rnncore.export.tracing.nesting import kinds_of_arrays
from rnncore.runtime.errors import ExportError


class ArrayReads(TorchFunctionMode):
    """Lets ``numpy()`` give an array that may be handed on, where a trace has no numbers for one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.Tensor.numpy:
            return func(*args, **(kwargs or {}))
        try:
            return func(*args, **(kwargs or {}))
        except (RuntimeError, TypeError):
            lines = user_lines(2)
            return ArrayOfTrace(f":\n  {lines[-1]}" if lines else "")


class ArrayOfTrace:
    """Stands for an array whose numbers are not known: it can be handed on, and nothing else."""

    def __init__(self, where: str) -> None:
        object.__setattr__(self, "_where", where)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ExportError(
            "forward computes with an array of numpy (numpy(), numpy.asarray()), whose numbers a file does not know: use torch's "
            f"functions on the tensor; an array that is only handed back is left out{self._where}"
        )

    __array__ = __getitem__ = __setitem__ = __iter__ = __len__ = __bool__ = __float__ = __int__ = __index__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __matmul__ = _refuse
    __neg__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse


def left_out(result: Any) -> list[str]:
    """A remark on arrays in what the module gives back, if there are any."""
    kinds = kinds_of_arrays(result)
    return [f"what forward gives as {' and '.join(kinds)} is left out: a file gives tensors"] if kinds else []
