"""Exceptions of signal handlers: Ctrl-C, a time limit.  They may come between any two operations, and mean no input.

What they must find is written where it happens: a state changes by one store, several by one call of C code
(:func:`set_together`), and whoever was broken off while using a stream is not waited for.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from types import CodeType
from typing import Any


def from_signal_handler(error: BaseException) -> bool:
    """True if a signal handler of this program raised ``error``, whatever was running then."""
    codes = _handler_codes()
    trace = error.__traceback__
    while trace is not None:
        if any(trace.tb_frame.f_code is code for code in codes):  # by ==, some code that compilers make has no hash
            return True
        trace = trace.tb_next
    return False


def set_together(things: Iterable[object], names: Iterable[str], values: Iterable[Any]) -> None:
    """``setattr`` for each, all of them or none: C code does it in one go, and no signal handler runs in between."""
    any(map(setattr, things, names, values))


def _handler_codes() -> list[CodeType]:
    codes = []
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if not callable(handler):
            continue
        function = getattr(handler, "func", handler)  # of functools.partial
        function = getattr(function, "__func__", function)  # of a method
        code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
        if isinstance(code, CodeType):
            codes.append(code)
    return codes
