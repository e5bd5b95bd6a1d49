"""The line of the user's code that draws random numbers."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rnncore.export.tracing.source_lines import line_of_now


def line_that_draws(call: Callable[[], Any]) -> str:
    """Where ``call`` draws from torch or Python first, such as `` at model.py:12, in forward``; empty if nobody knows."""
    watch, before = _Watch(), sys.getprofile()
    sys.setprofile(watch.called)
    try:
        with watch:
            call()
    finally:
        sys.setprofile(before)
    return f" at {watch.line}" if watch.line else ""


class _Watch(TorchDispatchMode):
    """Keeps the line of the first draw."""

    def __init__(self) -> None:
        super().__init__()
        self.line = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags and not self.line:
            self.line = line_of_now()
        return func(*args, **(kwargs or {}))

    def called(self, _frame: FrameType, event: str, function: Any) -> None:
        """See :func:`sys.setprofile`."""
        if event == "c_call" and isinstance(getattr(function, "__self__", None), random.Random) and not self.line:
            self.line = line_of_now()
