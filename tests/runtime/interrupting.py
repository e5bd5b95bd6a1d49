"""Signals at chosen moments: an exception of a handler after so many operations of the interpreter, wherever that is."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class TimeLimit(Exception):
    """What a handler raises; an ordinary exception, as of most time limits."""


def limit(number: int, frame: FrameType | None) -> None:
    raise TimeLimit


def interrupted_at(operation: int, work: Callable[[], Any], module: str = "rnncore.runtime") -> bool:
    """Run ``work``, and have TimeLimit come before the given operation (from 0) of code of ``module``; False if it was over.

    A signal is delivered between two operations of the interpreter.  Which ones it may come between differs from version
    to version; here it is all of them.
    """
    left = operation
    struck = False

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left, struck
        if struck or frame.f_code.co_name == "__del__" or not frame.f_globals.get("__name__", "").startswith(module):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            left -= 1
            if left < 0:
                struck = True
                sys.settrace(None)
                raise TimeLimit
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except TimeLimit:
        assert struck
    finally:
        sys.settrace(before)
    return struck


def interrupted_after(seconds: float, work: Callable[[], Any]) -> bool:
    """Run ``work``, and have a real signal come after ``seconds``; False if it was over before."""
    before = signal.signal(signal.SIGUSR1, limit)  # not SIGALRM, which ends tests that hang
    over = threading.Event()
    target = threading.get_ident()

    def strike() -> None:
        if not over.wait(seconds):
            signal.pthread_kill(target, signal.SIGUSR1)

    thread = threading.Thread(target=strike)
    struck = False
    try:
        try:
            thread.start()
            work()
        finally:
            over.set()
            thread.join()
    except TimeLimit:
        struck = True
    try:
        thread.join()  # the signal may come as late as this
    except TimeLimit:
        struck = True
    finally:
        signal.signal(signal.SIGUSR1, before)
    return struck
