"""Threads that are handed tasks, in a way that an exception of a signal handler cannot leave half done.

What hands them over is written in C, a queue and locks, and such an exception finds it either done or not.  An executor of
``concurrent.futures`` may be left with a lock that nobody opens: the next call waits at it for ever, or the program at its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Task(Generic[T]):
    """Something that a helper does, and what came of it."""

    __slots__ = ("_over", "_result", "_work", "error")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._over = threading.Lock()
        self._over.acquire()
        self._result: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do it."""
        try:
            self._result = self._work()
        except BaseException as error:
            self.error = error
        self._over.release()

    def wait(self) -> None:
        """Return when it is done; asked once."""
        self._over.acquire()

    def result(self) -> T:
        """What it gave, after :meth:`wait`; raises what it raised."""
        if self.error is not None:
            raise self.error
        return cast(T, self._result)


Tasks = SimpleQueue[Task[Any] | None]


def start_helpers(count: int, name: str) -> Tasks:
    """Start threads and return what they take their tasks from; RuntimeError if the interpreter is about to end."""
    tasks: Tasks = SimpleQueue()
    for number in range(count):
        # Nobody has to wait for the end of one that a broken-off start has left behind.
        threading.Thread(target=_help, args=(tasks,), name=f"{name}_{number}", daemon=True).start()
    return tasks


def dismiss(tasks: Tasks, count: int) -> None:
    """Let so many threads end when all that was handed in before is done."""
    for _ in range(count):
        tasks.put(None)


def _help(tasks: Tasks) -> None:
    while (task := tasks.get()) is not None:
        task.run()
        del task  # or its arrays would live until the next one
