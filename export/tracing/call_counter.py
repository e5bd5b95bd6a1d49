"""Loops over time that the user's forward writes out: torch would unroll them and fix the length, so they are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

HOW_WITH_CELL = """Let rnncore run it over time; it keeps the very same parameters:
    self.{name}_over_time = rnncore.Recurrent(self.{name})      # in __init__
    y, state = self.{name}_over_time(x)      # in forward, in place of the loop: x is [batch, time, features]"""
HOW_WITHOUT_CELL = """Write the body of the loop as a rnncore.Cell (project: what does not depend on the past, step: the rest):
    self.over_time = rnncore.Recurrent(MyCell(...))      # in __init__
    y, state = self.over_time(x)      # in forward, in place of the loop: x is [batch, time, features]"""


class CallCounter:
    """How often each part of a module was called."""

    def __init__(self, module: nn.Module) -> None:
        self._parts = {part: path for path, part in module.named_modules() if path}
        self._calls: Counter[nn.Module] = Counter()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count calls inside the block."""
        self._calls.clear()

        def count(part: nn.Module, arguments: Any) -> None:
            self._calls[part] += 1

        hooks = [part.register_forward_pre_hook(count) for part in self._parts]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def has_cells(self) -> bool:
        """Whether a cell of torch.nn was called."""
        return any(isinstance(part, nn.RNNCellBase) for part in self._calls)

    def explain_loop(self, steps: int) -> str:
        """What was called once for each of ``steps`` time steps and how to write that; empty if nothing was.

        A cell of torch.nn that is called more than once is in a loop; other modules where the number of calls says so
        (a loop may treat its first step apart).
        """
        cells = [part for part, n in self._calls.items() if isinstance(part, nn.RNNCellBase) and n > 1]
        if cells:
            name = self._parts[cells[0]]
            return f"{self._describe(cells)}.\n  {HOW_WITH_CELL.format(name=name)}"
        others = [part for part, n in self._calls.items() if n in (steps - 1, steps)]
        return f"{self._describe(others[:3])}.\n  {HOW_WITHOUT_CELL}" if others else ""

    def _describe(self, parts: Sequence[nn.Module]) -> str:
        called = [f"'{self._parts[part]}' ({type(part).__name__}) {self._calls[part]} times" for part in parts]
        return f"forward calls {', '.join(called)}, once for each time step: exporting such a loop would fix its length"
