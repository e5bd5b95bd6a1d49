"""What a forked child must do before it may use what it inherited.

A fork copies memory, not threads.  A lock that another thread held stays locked for ever, and an onnxruntime session
waits for threads that are gone.  In the child every session is therefore opened again when it is first needed, every
stream gets a new lock and binds its buffers anew; its state is that of its last finished push.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Protocol


class Forkable(Protocol):
    """Something that has to be told that it is now in another process."""

    def after_process_fork(self) -> None:
        """Called in the child, before anything else runs there."""


_live: weakref.WeakSet[Any] = weakref.WeakSet()


def watch(thing: Forkable) -> None:
    """Have ``thing.after_fork`` called in every child forked while it lives."""
    _live.add(thing)


def abandon(thing: object) -> None:
    """Keep ``thing`` for ever: to free it here would wait for threads, or take locks, of the parent process."""
    if thing is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _after_fork_in_child() -> None:
    for thing in list(_live):
        thing.after_process_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
