"""Functions of torch that a recording takes apart before they run, and numbers that code reads off tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.overrides import TorchFunctionMode

from rnncore.export.tracing.rolling.cells import CELLS
from rnncore.export.tracing.rolling.numbers_read import number_read
from rnncore.export.tracing.rolling.slicing import sliced
from rnncore.export.tracing.rolling.spelled import spelled
from rnncore.runtime.errors import ExportError

_LISTS = ("tolist", "numpy", "__array__")


class Calls(TorchFunctionMode):
    """Writes out what torch's cells compute, so that the part which reads the input can leave the loop.

    ``item()`` of a float gives a number that may be handed on, as to a log, and not computed with.  ends: of the rows,
    "full" or "differ": lists of whole numbers are read one by one; "": they are not.
    """

    def __init__(self, ends: str) -> None:
        super().__init__()
        self._each, self._differ = ends != "", ends == "differ"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in CELLS:
            return CELLS[name](*args, **(kwargs or {}))
        plain = spelled(func, args, kwargs or {})
        if plain is not None:
            return plain
        part = sliced(func, args) if self._differ else None
        if part is not None:
            return part[0]
        if name in _LISTS and self._each and args[0].dim() == 1 and not args[0].is_floating_point():
            numbers = [entry.item() for entry in args[0]]
            return numbers if name == "tolist" else np.array(numbers)
        if name != "item" or not args[0].is_floating_point():
            return func(*args, **(kwargs or {}))
        try:
            return func(*args, **(kwargs or {}))
        except ExportError:  # a float that the file does not know as it knows its weights
            return number_read()
