"""Who uses a stream: one call at a time; a call that an exception broke off, wherever that was, holds nothing.

A lock would not do: an exception of a signal handler that comes after it was taken, and before the ``try`` that gives it
back, leaves it locked for ever.  So the holder is the frame of the call itself, put in place by one atomic operation.
Whoever finds another frame there asks whether that is still being executed.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType, TracebackType

from rnncore.runtime.errors import StreamBusyError
from rnncore.runtime.session.process_fork import watch

Holder = dict[int, FrameType]
"""Empty, or under 0 the frame that uses the stream."""

_BUSY = "the stream is in use by another caller: one stream serves one caller at a time, use fork() for a second one"


class _TakeOvers:
    """One at a time, in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        watch(self)

    def after_process_fork(self) -> None:
        """A lock of this process."""
        self.lock = threading.Lock()


_take_overs = _TakeOvers()


def hold(holder: Holder, frame: FrameType, busy: str = _BUSY) -> None:
    """Make ``frame`` the holder; StreamBusyError if another one is and still runs."""
    if holder.setdefault(0, frame) is frame:
        return
    with _take_overs.lock:
        found = holder.setdefault(0, frame)
        if found is frame:
            return
        if _is_over(found):
            holder[0] = frame  # nobody else replaces a frame, and this one will not be back
            return
    raise StreamBusyError(busy)


class Held:
    """Holds a stream for the function that enters the ``with``."""

    __slots__ = ("_frame", "_holder")

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._frame: FrameType | None = sys._getframe(1)

    def __enter__(self) -> None:
        assert self._frame is not None
        frame, self._frame = self._frame, None  # no cycle: the frame knows this object
        hold(self._holder, frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.clear()


def _is_over(frame: FrameType) -> bool:
    """True when the call of ``frame`` has ended, in whatever way."""
    try:
        frame.clear()  # refuses as long as it is executed, in any thread
    except RuntimeError:
        return False
    return True
