"""What a long export is doing, on the terminal where it runs; nothing for short ones, in logs and in pipes."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TextIO

AFTER_S = 2.0
EVERY_S = 0.5
_CLEAR = "\r\x1b[K"


class Progress:
    """A line that says the stage and the seconds so far, rewritten in place from the second second on, gone at the end.

    A thread of its own writes it: stages are long, and torch's exporter is called with the output of its thread muted.
    """

    def __init__(self, what: str, stream: TextIO | None = None, after_s: float = AFTER_S) -> None:
        """Args:
        what: named at the head of the line, such as the file's name.
        stream: by default standard error.  Only a terminal is written to.
        after_s: seconds before the first line.
        """
        self._stream = sys.stderr if stream is None else stream
        self._what = what
        self._stage = "starting"
        self._after_s = after_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def shown(self) -> bool:
        """Whether somebody may be watching."""
        return self._thread is not None

    def now(self, stage: str) -> None:
        """What happens from here on, such as "tracing"."""
        self._stage = stage

    def __enter__(self) -> Progress:
        if _is_terminal(self._stream):
            self._thread = threading.Thread(target=self._show, name="rnncore-export-progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _show(self) -> None:
        start, wait = time.monotonic(), self._after_s
        try:
            while not self._over.wait(wait):
                seconds, wait = time.monotonic() - start, EVERY_S
                self._stream.write(f"{_CLEAR}{self._what}: {self._stage} ({seconds:.0f} s)")
                self._stream.flush()
            if wait != self._after_s:
                self._stream.write(_CLEAR)
                self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone: the export goes on
            pass


def _is_terminal(stream: object) -> bool:
    """Whether ``stream``, which a program may have put in the place of standard error or closed, shows what is rewritten."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
