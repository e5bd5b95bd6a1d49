"""One large call on several processors: threads of our own, each of which runs the graph over some of the rows.

Inside a loop of small products onnxruntime's threads gain little: they meet after every node of every step.  Rows that do not
depend on each other need to meet once, at the end.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rnncore.runtime.session.helpers import Task, Tasks, dismiss, start_helpers
from rnncore.runtime.session.process_fork import abandon, watch

T = TypeVar("T")

_TOGETHER = 4
"""Rows that stay together: onnxruntime's kernel of a single row rounds otherwise than that of many."""
_LEAST_S = 1e-3  # a shorter call is over before another thread has begun
_SUPPOSED_PACE_S = 5e-7  # of one row and step, before a call was timed: a small layer


def rows_are_independent(report: dict[str, Any]) -> bool:
    """Whether the export that made a file found, by its report, that each row of a batch is answered as it is alone."""
    cases = report.get("cases")
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        return False
    rows = [case for case in cases if case.get("kind") == "rows"]
    return any(case.get("batch") == 1 for case in rows) and all(case.get("passed") is True for case in rows)


class RowSharing:
    """Threads that run parts of a call beside the thread that makes it; for one call at a time, others do without.

    threads: how many work on a call, the caller's included; at least 2.
    """

    __slots__ = ("__weakref__", "_busy", "_pace_s", "_tasks", "_threads")

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pace_s: float | None = None  # the best of those measured; what it decides changes no answer
        self._busy = threading.Lock()
        self._tasks: Tasks | None = None  # of helpers that have been started
        watch(self)

    def after_process_fork(self) -> None:
        """The helpers stayed in the parent process."""
        abandon(self._tasks)
        self._tasks = None
        self._busy = threading.Lock()

    def parts(self, batch: int, steps: int) -> list[slice]:
        """The rows of each thread; one part if the call is not worth more."""
        pace = _SUPPOSED_PACE_S if self._pace_s is None else self._pace_s
        if batch * max(steps, 1) * pace < _LEAST_S:
            return [slice(0, batch)]
        blocks = batch // _TOGETHER
        count = max(1, min(self._threads, blocks))
        ends = [_TOGETHER * (blocks * part // count) for part in range(1, count)]  # what is over goes to the last
        return [slice(first, end) for first, end in zip([0, *ends], [*ends, batch], strict=True)]

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T] | None:
        """The result of each task, the first of them run by this thread; None, at once, if the helpers are at work.

        Raises what the first task that failed has raised, when none runs any more.  An exception of a signal handler leaves
        tasks behind, whose results nobody gets; all that they change is their own.
        """
        # An exception of a signal handler between this and the try leaves it locked: then calls are whole from now on.
        if not self._busy.acquire(blocking=False):
            return None
        try:
            return self._run(tasks)
        finally:
            self._busy.release()

    def timed(self, row_steps: int, seconds: float) -> None:
        """The graph ran over so many rows times steps, in one thread."""
        pace = seconds / max(row_steps, 1)
        self._pace_s = pace if self._pace_s is None else min(self._pace_s, pace)

    def _run(self, tasks: Sequence[Callable[[], T]]) -> list[T] | None:
        if sys.is_finalizing():  # the helpers have stopped for good
            return None
        try:
            queue = self._helpers()
        except RuntimeError:  # the interpreter is about to end, and starts no threads
            return None
        others = [Task(task) for task in tasks[1:]]
        for task in others:
            queue.put(task)
        try:
            first = tasks[0]()
        except Exception:
            for task in others:
                task.wait()
            raise
        for task in others:
            task.wait()
        return [first, *(task.result() for task in others)]

    def _helpers(self) -> Tasks:
        """What the helpers take their tasks from; they are started where there are none."""
        if self._tasks is None:
            tasks = start_helpers(self._threads - 1, "rnncore-rows")
            weakref.finalize(self, dismiss, tasks, self._threads - 1).atexit = False
            self._tasks = tasks
        return self._tasks
