"""The other thread of a pool: it tells of one batch while the next is run.

To tell somebody is to let go of the interpreter, and those who are told keep it until they have pushed again.  The workers
would wait for all of that before they could run what is ready.

Callbacks run in this thread or in a worker's.  A thread of the pool that waited for the pool would wait for ever, and with
it every client: :meth:`Notifier.check_may_wait` refuses that.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from rnncore.runtime.errors import PoolError
from rnncore.runtime.origin import logger
from rnncore.runtime.pool.request import OVER, PushRequest

_PATIENCE_S = 1.0
_OWN_THREAD = (
    "a callback waits for its own pool here, in a thread that the pool needs to answer: use submit(), which does not wait, "
    "or push from a thread of your own"
)

Posted = tuple[float, asyncio.AbstractEventLoop, "deque[asyncio.Future[None]]"]


class Notifier:
    """Tells whoever waits for requests that are over: coroutines and callbacks in the order in which these are handed in.

    on_lost: called for a request whose event loop was closed: nobody is left to be told.
    """

    def __init__(self, on_lost: Callable[[PushRequest], None]) -> None:
        self._on_lost = on_lost
        self._due: deque[Sequence[PushRequest]] = deque()
        self._turn = threading.Lock()  # held by whoever tells
        self._calls: SimpleQueue[bool] = SimpleQueue()  # False ends the thread
        self._posted: deque[Posted] = deque()  # what event loops have been told, and may not have heard
        self._own: set[int] = set()
        self.thread = threading.Thread(target=self._tell_when_called, name="rnncore-notifier", daemon=True)
        self.thread.start()

    def join_pool(self) -> None:
        """The calling thread is one of the pool's from now on."""
        self._own.add(threading.get_ident())

    def leave_pool(self) -> None:
        """The calling thread is about to end; another one may get its number."""
        self._own.discard(threading.get_ident())

    @property
    def in_own_thread(self) -> bool:
        """True when called in a thread of the pool, which is to say in a callback."""
        return threading.get_ident() in self._own

    def check_may_wait(self) -> None:
        """Raise PoolError in a thread of the pool."""
        if threading.get_ident() in self._own:
            raise PoolError(_OWN_THREAD)

    def hand_in(self, requests: Sequence[PushRequest]) -> list[PushRequest]:
        """Line these up to be told of by :meth:`tell_now` or the thread, but for those returned, whose gates are enough.

        With the pool's lock held, so that requests of one stream are told of in their order whichever worker ran them.
        """
        gates: list[PushRequest] = []
        others: list[PushRequest] = []
        for request in requests:
            (gates if request.waits_by_lock else others).append(request)
        if others:
            self._due.append(others)
        return gates

    def tell_now(self) -> None:
        """Tell of all that were handed in, or leave it to whoever is about it: a slow callback holds up one thread."""
        if self._turn.acquire(blocking=False):
            try:
                self._tell_all()
            finally:
                self._turn.release()
        else:
            self.tell_soon()

    def tell_soon(self) -> None:
        """Have the thread tell of all that were handed in; returns without having let go of the interpreter."""
        self._calls.put(True)

    def tell_later(self, requests: Sequence[PushRequest]) -> None:
        """Have the thread tell of these; also if an exception of a signal handler comes before it is called."""
        self._due.append(requests)
        self._calls.put(True)

    def close(self) -> None:
        """Return when everybody has been told and the thread has ended."""
        self._calls.put(False)
        self.thread.join()

    def _tell_when_called(self) -> None:
        self.join_pool()
        called = True
        while called:
            try:
                called = self._calls.get(timeout=_PATIENCE_S)
            except queue.Empty:
                self._post_again()
            with self._turn:
                self._tell_all()
        self._post_again(patience_s=0)
        self.leave_pool()

    def _tell_all(self) -> None:
        while self._due:
            self._tell(self._due.popleft())

    def _tell(self, requests: Sequence[PushRequest]) -> None:
        """Tell everybody who waits for these requests to go on, with one wake-up for each event loop."""
        loops: dict[asyncio.AbstractEventLoop, list[PushRequest]] = {}
        for request in requests:
            if request.future is not None:
                loops.setdefault(request.future.get_loop(), []).append(request)
                continue
            deliver = request.deliver
            if deliver is not None and request.stage is OVER:
                request.deliver = None
                try:
                    deliver(request)
                except BaseException:  # sys.exit() in a callback, say: nobody else must wait for ever because of it
                    logger.exception("a callback of a push failed")
            request.open_gate()
        while self._posted and not self._posted[0][2]:
            self._posted.popleft()
        for loop, own in loops.items():
            due = deque(request.future for request in own if request.future is not None)
            try:
                loop.call_soon_threadsafe(_complete_in_loop, due)
            except RuntimeError:
                for request in own:
                    self._on_lost(request)
            else:
                self._posted.append((time.monotonic(), loop, due))

    def _post_again(self, patience_s: float = _PATIENCE_S) -> None:
        """An exception of a signal handler may have come when a loop was about to hear: tell it once more."""
        with self._turn:
            late, self._posted = list(self._posted), deque()
            for posted, loop, due in late:
                if due and not loop.is_closed():
                    self._posted.append((posted, loop, due))
                    if time.monotonic() - posted >= patience_s:
                        try:
                            loop.call_soon_threadsafe(_complete_in_loop, due)
                        except RuntimeError:  # closed in this moment
                            due.clear()


def _complete_in_loop(due: deque[asyncio.Future[None]]) -> None:
    """Each is taken off only when it has been told: whoever is broken off here is told again."""
    while due:
        future = due[0]
        if not future.done():
            future.set_result(None)
        due.popleft()
