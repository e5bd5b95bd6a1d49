"""The second thread of a pool: it tells of one batch while the next is run.

To tell somebody is to let go of the interpreter, and those who are told keep it until they have pushed again.  The worker
would wait for all of that before it could run what is ready.
"""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue

from rnncore.runtime.pool.request import PushRequest, complete


class Notifier:
    """Tells whoever waits for requests that are over: coroutines and callbacks in the order in which these are handed in."""

    def __init__(self) -> None:
        self._due: deque[list[PushRequest]] = deque()
        self._turn = threading.Lock()  # held by whoever tells
        self._calls: SimpleQueue[bool] = SimpleQueue()  # False ends the thread
        self.thread = threading.Thread(target=self._tell_when_called, name="rnncore-notifier", daemon=True)
        self.thread.start()

    def tell_now(self, requests: list[PushRequest]) -> None:
        """Return when these, and all before them, have been told."""
        self._due.append(requests)
        self._tell_due()

    def tell_soon(self, requests: list[PushRequest]) -> None:
        """Have the thread tell of these; returns without having let go of the interpreter."""
        complete([request for request in requests if request.waits_by_lock])  # which opens without that
        others = [request for request in requests if not request.waits_by_lock]
        if others:
            self._due.append(others)
            self._calls.put(True)

    def close(self) -> None:
        """Return when everybody has been told and the thread has ended."""
        self._calls.put(False)
        self.thread.join()

    def _tell_when_called(self) -> None:
        while self._calls.get():
            self._tell_due()

    def _tell_due(self) -> None:
        with self._turn:
            while self._due:
                complete(self._due.popleft())
