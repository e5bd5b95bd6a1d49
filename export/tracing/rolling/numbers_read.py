"""Numbers that code takes out of a tensor and does nothing with but hand them on, as for a log: they are no matter of a file."""

from __future__ import annotations

from typing import Any, NoReturn

from rnncore.export.tracing.callers import user_lines
from rnncore.export.tracing.rolling.questions import refusal
from rnncore.runtime.errors import ExportError


class NumberRead:
    """A float that nobody knows while a module is recorded; whoever computes with it is refused, with the line that read it."""

    def __init__(self, why_not: ExportError) -> None:
        self._why_not = why_not

    def _refuse(self, *_: Any) -> NoReturn:
        raise self._why_not

    __float__ = __int__ = __index__ = __bool__ = __round__ = __abs__ = __neg__ = __eq__ = __ne__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __pow__ = __rpow__ = _refuse
    __hash__ = None  # type: ignore[assignment]

    def __format__(self, spec: str) -> str:
        return "?"


def number_read() -> NumberRead:
    """What stands for a number that the line which is running reads off a tensor."""
    return NumberRead(refusal("item()", user_lines(2)))
