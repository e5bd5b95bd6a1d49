"""Who is next: the queue of a pool, from the push that joins it to the answer that is told.

A push is one request in the queue of its stream.  Streams whose first request can be run are ready, in the order in which
they became so.  A worker (:mod:`rnncore.runtime.pool.worker`) takes a batch, runs it without the lock, and reports what
is over.  What changes on the way, and how, is the matter of the books (:mod:`rnncore.runtime.pool.books`).

Workers take batches in turn: one waits for the next batch, the others run theirs, or wait for their turn.  A stream is in
one batch at a time, whichever worker runs it, so its pushes keep their order, and a batch that takes long holds up its own
streams only.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rnncore.runtime.errors import (
    DeadlineExceeded,
    Overloaded,
    PoolClosedError,
    PoolError,
    StreamBusyError,
)
from rnncore.runtime.interrupts import set_together
from rnncore.runtime.pool.books import CANCELLED, Books
from rnncore.runtime.pool.request import OVER, QUEUED, RUNNING, WAITING, PushRequest, StreamQueue
from rnncore.runtime.session.run import Items
from rnncore.runtime.session.session import Engine

T = TypeVar("T")

_EXPIRED = "the push waited longer than its timeout and was not applied: the pool is busier than that, or is closing"
_CLOSED = "the pool is closed: open a new one with model.pool()"
_LOOP_WAITS = (
    "this push would wait for one that only the event loop of this very thread can go on with, so for ever: use "
    "`await stream.apush(...)` here"
)

_MANY = 32
"""So many streams are run in two halves: answers of one half are handed out, and pushed on, while the other half runs."""

_LONGEST_NAP_S = 1.0
"""The worker that waits for a batch looks up so often: whoever was broken off before waking it has lost nothing but time."""

_POLL_S = 1e-3


@dataclass(frozen=True)
class Batching:
    """How batches are made: ``max_batch``, ``max_wait_ms`` and ``max_streams`` as of :meth:`rnncore.runtime.Model.pool`.

    workers: so many take batches, ``max_streams`` at most.
    """

    max_batch: int
    max_wait_ms: float
    max_streams: int | None
    workers: int

    @property
    def most_rows(self) -> int:
        """Rows of a batch: what is being run must be resident, all batches together."""
        return self.max_batch if self.max_streams is None else min(self.max_batch, self.max_streams // self.workers)


class Scheduler(Books):
    """Who is next in one pool.

    max_pending: as of :meth:`rnncore.runtime.Model.pool`.  waits: a push beyond that waits for a place, else it is refused.
    """

    def __init__(
        self,
        engine: Engine,
        batching: Batching,
        *,
        max_pending: int,
        waits: bool = False,
    ) -> None:
        super().__init__(engine.layout, max_pending=max_pending, max_streams=batching.max_streams)
        self.engine = engine
        self._waits = waits
        self._workers = batching.workers
        self._at_work = batching.workers
        self._max_batch = batching.most_rows
        self._max_wait_s = batching.max_wait_ms / 1e3
        self._turn = threading.Lock()  # held by the worker that waits for the next batch

    # ------------------------------------------------------------------------------------------- from any thread

    def submit(self, request: PushRequest, loop: asyncio.AbstractEventLoop | None = None) -> bool:
        """Queue a request.  False if it has to wait for a place: it is told, and then handed in with :meth:`fill`.

        loop: the event loop that stands still as long as the caller waits, if there is one.

        Raises PoolClosedError, StateError (the stream is closed), StreamEvictedError, Overloaded, or PoolError if the
        caller would wait for itself.
        """
        if self.forked:
            self.check_process()
        queue = request.queue
        with self.lock:
            if self._torn:
                self._mend()
            if self.closing:
                raise PoolClosedError(_CLOSED)
            if queue.closed or queue.evicted:
                self.check_usable(queue)
            if loop is not None and queue.requests and _needs(loop, queue):
                raise PoolError(_LOOP_WAITS)
            if self.pending >= self._max_pending or self._waiting:
                return self._wait_for_place(request, loop)
            self._torn = True
            self.pending += 1
            self.counters.totals["pushes"] += 1
            queue.requests.append(request)
            if not queue.queued and queue.requests[0] is request:  # as in _line_up, without the call
                queue.queued = True
                self._ready.append(queue)
            self._torn = False
            if self._wake_at and len(self._ready) >= self._wake_at:
                self._wake()
        return True

    def fill(self, request: PushRequest, items: Items) -> None:
        """Queue a request that had to wait and now has its place; raises what happened to it in the meantime."""
        with self.lock:
            if self._torn:
                self._mend()
            if request.stage is WAITING:
                self._torn = True
                set_together((request, request), ("items", "stage"), (items, QUEUED))
                self._line_up(request.queue)
                self._torn = False
        if request.error is not None and request.stage is OVER:
            raise request.error

    def expire(self, request: PushRequest) -> None:
        """The time of this request is up: drop it and tell whoever waits, unless it has begun to run."""
        with self.lock:
            self.sweep()
            if request.stage in (RUNNING, OVER) or request.done or request not in request.queue.requests:
                return
            self._torn = True
            self._drop(request, DeadlineExceeded(_EXPIRED), "expired")
            self._torn = False

    def close(self, drain: bool) -> None:
        """Take no more pushes; those that are queued are run or dropped, those that wait for a place are dropped."""
        stages = (WAITING,) if drain else (WAITING, QUEUED)
        with self.lock:
            self.closing = True
            self.sweep()
            self._torn = True
            requests = [t for queue in self.queues.values() for t in queue.requests if t.stage in stages]
            for request in requests:
                self._drop(request, PoolClosedError(_CLOSED), "cancelled")
            self._torn = False
            self._wake()

    def close_stream(self, queue: StreamQueue) -> None:
        """Close a stream; its requests that are not running are dropped and told."""
        with self.lock:
            self.sweep()
            self._release(queue)

    def when_quiet(self, queue: StreamQueue, busy: str, act: Callable[[], T]) -> T:
        """The answer of ``act``, called with the lock held while no push of the stream is pending.

        Calls whose answers nobody wants are waited for; other pushes are StreamBusyError.
        """
        self.check_process()
        while True:
            with self.lock:
                self.sweep()
                self.check_usable(queue)
                if not queue.requests:
                    return act()
                if not all(request.abandoned for request in queue.requests):
                    raise StreamBusyError(busy)
                self._wake()
            time.sleep(_POLL_S)

    # --------------------------------------------------------------------------------------------- from the workers

    def take(self, *, wait: bool = True) -> list[PushRequest] | None:
        """Wait for a batch worth running; None when the pool is closed and everything was answered.

        wait: if False and there is no such batch, there will be none, or another worker waits for it, return an empty list
            at once.
        """
        if not self._turn.acquire(blocking=wait):
            return []
        try:
            return self._take(wait)
        finally:
            self._turn.release()

    def _take(self, wait: bool) -> list[PushRequest] | None:
        requests: list[PushRequest] = []
        with self.lock:
            while not requests:
                if not self._await_batch(wait):
                    return None if wait else []
                now = time.monotonic()
                most = max(self._most(len(self.resident)), self._most(len(self._ready)))
                ready = self._ready
                while ready and len(requests) < most:
                    queue = ready.popleft()
                    first = queue.requests[0] if queue.requests else None
                    if first is not None and first.deadline is None and first.stage is QUEUED and not first.abandoned:
                        first.stage = RUNNING  # as in _take_first, without the call
                        requests.append(first)
                    else:
                        self._take_first(queue, now, requests)
                self._running += len(requests)
                self.counters.waited([now - request.queued_at for request in requests if request.done == 0])
        return requests

    def put_back(self, requests: Sequence[PushRequest]) -> None:
        """These requests have run for a while and are not over."""
        with self.lock:
            if self._torn:
                self._mend()
            self._running -= len(requests)
            for request in requests:
                request.stage = QUEUED
                self._ready.append(request.queue)
            if self._wake_at and len(self._ready) >= self._wake_at:
                self._wake()

    def leave(self) -> bool:
        """A worker is about to end; True if it is the last."""
        with self.lock:
            self._at_work -= 1
            return self._at_work == 0

    # -------------------------------------------------------------------------------------------- with the lock held

    def _wait_for_place(self, request: PushRequest, loop: asyncio.AbstractEventLoop | None) -> bool:
        if not self._waits or self.notifier.in_own_thread:
            self.counters.totals["overloaded"] += 1
            raise Overloaded(
                f"{self.pending} pushes are pending, the pool takes max_pending={self._max_pending}: try again "
                "later, or open the pool with on_overload='wait'"
            )
        if loop is not None and any(_needs(loop, queue) for queue in self.queues.values()):
            raise PoolError(_LOOP_WAITS)
        self._torn = True
        # Items are copied when there is a place: those who wait cost no memory.
        set_together((request, request), ("items", "stage"), ({}, WAITING))
        request.queue.requests.append(request)
        self._waiting.append(request)
        self._torn = False
        self._wake()  # who has the last place may have been broken off
        return False

    def _most(self, streams: int) -> int:
        """Rows of a batch when so many streams take part."""
        parts = self._workers if streams < _MANY else max(self._workers, 2)
        return max(1, min(self._max_batch, -(-streams // parts)))

    def _await_batch(self, wait: bool) -> bool:
        """Return when the batch is full, everybody is there or is being run, or the first has waited for long enough.

        False if there is nothing to run and never will be; without ``wait``, if there is nothing to run now.
        """
        while True:
            self.sweep()
            ready = len(self._ready)
            if self.closing:
                # Whoever has a place and does not come with its chunk was dropped when the pool was closed.
                return bool(ready)
            streams = len(self.resident)
            target = self._most(streams)
            if self._running:  # by other workers
                target = min(target, max(1, streams - self._running))
            nap = _LONGEST_NAP_S
            if ready:
                # The first in the queue has waited longest, unless it was withdrawn.
                first = self._ready[0]
                since = first.requests[0].queued_at if first.requests else 0.0
                nap = min(nap, since + self._max_wait_s - time.monotonic())
                if ready >= target or nap <= 0:
                    return True
            if not wait:
                return False
            self._wake_at = target if ready else 1
            self.lock.release()
            self._gate.acquire(timeout=nap)
            self.lock.acquire()
            self._wake_at = 0

    def _take_first(self, queue: StreamQueue, now: float, requests: list[PushRequest]) -> None:
        while queue.requests and queue.requests[0].stage is QUEUED:
            request = queue.requests[0]
            if request.abandoned:
                self._drop(request, PoolError(CANCELLED), "cancelled")
                continue
            if request.deadline is not None and now > request.deadline and request.done == 0:
                self._drop(request, DeadlineExceeded(_EXPIRED), "expired")
                continue
            request.stage = RUNNING
            requests.append(request)
            return
        queue.queued = False


def _needs(loop: asyncio.AbstractEventLoop, queue: StreamQueue) -> bool:
    """True if a push of the stream has its chunk still to be brought by a coroutine of ``loop``."""
    return any(
        request.stage is WAITING and request.future is not None and request.future.get_loop() is loop
        for request in queue.requests
    )
