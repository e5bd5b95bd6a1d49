"""Which ``squeeze()`` of a forward drops the batch axis of a batch of 1."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from rnncore.export.tracing.callers import user_lines
from rnncore.export.tracing.groups import Group
from rnncore.export.tracing.probing import Prober


class _Squeezes(TorchFunctionMode):
    """Notes the line of every ``squeeze``, and how many axes it dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "squeeze" and isinstance(result, Tensor):
            self.seen.append((str((user_lines(2) or ("",))[-1]), args[0].dim() - result.dim()))
        return result


def dropping_line(prober: Prober, batch: Group) -> str:
    """The line of the first ``squeeze`` that drops more axes of one row than of several; empty if there is none."""
    one, several = _Squeezes(), _Squeezes()
    prober.run_under(one, batch.sizes(1))
    prober.run_under(several, batch.sizes(max(2, batch.size)))
    for (line, dropped), (_, usual) in zip_longest(one.seen, several.seen, fillvalue=("", 0)):
        if dropped > usual:
            return line
    return ""
