"""Signals at chosen moments: an exception of a handler after so many operations of the interpreter, wherever that is."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any


class TimeLimit(Exception):
    """What a handler raises; an ordinary exception, as of most time limits."""


def limit(number: int, frame: FrameType | None) -> None:
    raise TimeLimit


def interrupted_at(
    operation: int, work: Callable[[], Any], module: str = "rnncore.runtime", *, deleting: bool = False
) -> bool:
    """Run ``work``, and have TimeLimit come before the given operation (from 0) of code of ``module``; False if it was over.

    deleting: in a ``__del__``, too, where Python loses it.
    A signal is delivered between two operations of the interpreter.  Which ones it may come between differs from version
    to version; here it is all of them.
    """
    left = operation
    struck = False

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left, struck
        if struck or not frame.f_globals.get("__name__", "").startswith(module):
            return None
        if frame.f_code.co_name == "__del__" and not deleting:
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
    """Do ``work`` again and again until a real signal comes, ``seconds`` from now or later; False if its exception was lost.

    How much later is up to the machine, so no count of calls would be sure to be under way when it comes.
    """
    target, arrived, struck = threading.get_ident(), False, False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal arrived
        arrived = True
        raise TimeLimit

    def strike() -> None:
        time.sleep(seconds)
        signal.pthread_kill(target, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)  # not SIGALRM, which ends tests that hang
    thread = threading.Thread(target=strike)
    try:
        thread.start()
        while not arrived:
            work()
    except TimeLimit:
        struck = True
    finally:
        with contextlib.suppress(TimeLimit):  # of a signal that comes when ``work`` has failed
            thread.join()
            while not arrived:
                time.sleep(1e-4)
        signal.signal(signal.SIGUSR1, before)
    return struck
