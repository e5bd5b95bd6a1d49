"""Who is next: the queue of a pool, from the push that joins it to the answer that is told.

A push is one request in the queue of its stream.  Streams whose first request can be run are ready, in the order in which they
became so.  The lock guards everything here; the worker (:mod:`rnncore.runtime.pool.worker`) takes a batch, runs it without
the lock, and reports what is over.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from rnncore.runtime.errors import DeadlineExceeded, Overloaded, PoolClosedError, PoolError, RnncoreError, StateError
from rnncore.runtime.pool.metrics import PoolCounters
from rnncore.runtime.pool.request import OVER, QUEUED, RUNNING, PushRequest, Stage, StreamQueue, complete
from rnncore.runtime.pool.resident import Resident
from rnncore.runtime.session.process_fork import watch
from rnncore.runtime.session.run import Items
from rnncore.runtime.session.session import Engine

CANCELLED = "the push was cancelled before it was run"
_EXPIRED = "the push waited longer than its timeout and was not applied: the pool is busier than that, or is closing"
_CLOSED = "the pool is closed: open a new one with model.pool()"
_FORKED = "this pool belongs to the process that this one was forked from: open a new one with model.pool()"
_STREAM_CLOSED = "the stream is closed: open a new one with pool.open()"

_MANY = 32
"""So many streams are run in two halves: answers of one half are handed out, and pushed on, while the other half runs."""


class Scheduler:
    """Queue and states of one pool.

    max_pending: so many pushes have a place in the queue.  waits: a push beyond that waits for one, else it is refused.
    """

    def __init__(
        self, engine: Engine, *, max_batch: int, max_wait_ms: float, max_pending: int, waits: bool = False
    ) -> None:
        self.engine = engine
        self.lock = threading.Lock()
        self.resident = Resident(engine.layout)
        self.counters = PoolCounters()
        self.queues: dict[str, StreamQueue] = {}
        self.dropped: deque[StreamQueue] = deque()  # streams that were garbage-collected open
        self.closing = False
        self.forked = False
        self.pending = 0  # pushes that have a place in the queue, or are being run
        self._waits = waits
        self._waiting: deque[PushRequest] = (
            deque()
        )  # pushes without a place; withdrawn ones are skipped when they come up
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1e3
        self._max_pending = max_pending
        self._ready: deque[StreamQueue] = deque()
        self._work = threading.Condition(self.lock)
        self._wake_at = 1  # so many ready streams wake the worker; 0 while it is at work
        self._moved = threading.Condition(self.lock)
        watch(self)

    # ------------------------------------------------------------------------------------------- from any thread

    def after_process_fork(self) -> None:
        """In a forked child there is no worker, and locks may never open."""
        self.forked = True

    def check_process(self) -> None:
        """Raise PoolClosedError in a forked child."""
        if self.forked:
            raise PoolClosedError(_FORKED)

    def submit(self, request: PushRequest) -> bool:
        """Queue a request.  False if it has to wait for a place: it is told, and then handed in with :meth:`fill`.

        Raises PoolClosedError, StateError (the stream is closed) or Overloaded.
        """
        if self.forked:
            self.check_process()
        queue = request.queue
        with self.lock:
            if self.closing:
                raise PoolClosedError(_CLOSED)
            if queue.closed:
                raise StateError(_STREAM_CLOSED)
            if self.pending >= self._max_pending or self._waiting:
                if not self._waits:
                    self.counters.totals["overloaded"] += 1
                    raise Overloaded(
                        f"{self.pending} pushes are pending, the pool takes max_pending={self._max_pending}: try again "
                        "later, or open the pool with on_overload='wait'"
                    )
                request.stage = Stage.WAITING
                request.items = {}  # copied when there is a place: those who wait cost no memory
                self._waiting.append(request)
                queue.requests.append(request)
                return False
            self.pending += 1
            self.counters.totals["pushes"] += 1
            queue.requests.append(request)
            if not queue.queued and queue.requests[0] is request:  # as in _line_up, without the call
                queue.queued = True
                self._ready.append(queue)
                if self._wake_at and len(self._ready) >= self._wake_at:
                    self._work.notify()
        return True

    def fill(self, request: PushRequest, items: Items) -> None:
        """Queue a request that had to wait and now has its place; raises what happened to it in the meantime."""
        with self.lock:
            if request.stage is Stage.WAITING:
                request.items = items
                request.stage = QUEUED
                self._line_up(request.queue)
        if request.error is not None and request.stage is OVER:
            raise request.error

    def cancel(self, request: PushRequest) -> None:
        """Nobody waits for this request any more: drop it, at once or before its next call if it needs one."""
        with self.lock:
            if request.stage is RUNNING:
                request.abandoned = True
            elif request.stage is not OVER:
                self._drop(request, PoolError(CANCELLED), "cancelled")

    def expire(self, request: PushRequest) -> None:
        """The time of this request is up: drop it and tell whoever waits, unless it has begun to run."""
        with self.lock:
            if request.stage in (RUNNING, OVER) or request.done:
                return
            self._drop(request, DeadlineExceeded(_EXPIRED), "expired")
        complete([request])

    def close(self, drain: bool) -> None:
        """Take no more pushes; those that are queued are run or dropped, those that wait for a place are dropped."""
        stages = (Stage.WAITING,) if drain else (Stage.WAITING, QUEUED)
        with self.lock:
            self.closing = True
            requests = [t for queue in self.queues.values() for t in queue.requests if t.stage in stages]
            for request in requests:
                self._drop(request, PoolClosedError(_CLOSED), "cancelled")
            self._work.notify()
        complete(requests)

    # -------------------------------------------------------------------------------------------- with the lock held

    @property
    def waiting(self) -> int:
        """Pushes that wait for a place in the queue."""
        return sum(request.stage is Stage.WAITING for request in self._waiting)

    def quiet(self, queue: StreamQueue) -> bool:
        """Wait for calls whose answers nobody wants; True if the queue then has no push left."""
        while queue.requests and all(request.abandoned for request in queue.requests):
            self._moved.wait()
        return not queue.requests

    def release(self, queue: StreamQueue) -> list[PushRequest]:
        """Close a queue; its requests that are not running are dropped and returned to be settled."""
        if queue.closed:
            return []
        queue.closed = True
        dropped = [request for request in queue.requests if request.stage is not RUNNING]
        for request in dropped:
            self._drop(request, StateError(_STREAM_CLOSED), "cancelled")
        if not queue.requests:
            self._forget(queue)
        return dropped

    def sweep(self) -> None:
        """Release the queues of streams that were dropped without being closed."""
        while self.dropped:
            self.release(self.dropped.popleft())

    def _line_up(self, queue: StreamQueue) -> None:
        """Queue a queue that is not queued, if its first request can be run."""
        if queue.queued or not queue.requests or queue.requests[0].stage is not QUEUED:
            return
        queue.queued = True
        self._ready.append(queue)
        if self._wake_at and len(self._ready) >= self._wake_at:
            self._work.notify()

    def _drop(self, request: PushRequest, error: RnncoreError, count: str) -> None:
        placed = request.stage is not Stage.WAITING or request.placed
        request.stage = OVER
        request.error = error
        request.carry = None
        request.queue.requests.remove(request)
        self.counters.totals[count] += 1
        self._line_up(request.queue)
        self._moved.notify_all()
        if placed:
            self.pending -= 1
            self._give_places()

    def _give_places(self) -> None:
        """Places that have become free go to those who have waited longest."""
        while self._waiting and self.pending < self._max_pending:
            given: list[PushRequest] = []
            while self._waiting and self.pending < self._max_pending:
                request = self._waiting.popleft()
                if request.stage is Stage.WAITING:
                    request.placed = True
                    self.pending += 1
                    self.counters.totals["pushes"] += 1
                    given.append(request)
            for request in complete(given):  # their event loop is gone, and they with it
                self._drop(request, PoolError(CANCELLED), "cancelled")

    def _forget(self, queue: StreamQueue) -> None:
        self.queues.pop(queue.key, None)
        if queue.row >= 0:
            self.resident.release(queue.row)
            queue.row = -1
        queue.parked = None

    # --------------------------------------------------------------------------------------------- from the worker

    def take(self, *, wait: bool = True) -> list[PushRequest] | None:
        """Wait for a batch worth running; None when the pool is closed and everything was answered.

        wait: if False and there is no such batch, or there will be none, return an empty list at once.
        """
        expired: list[PushRequest] = []
        requests: list[PushRequest] = []
        with self.lock:
            while not requests and not expired:
                self.sweep()
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
                        self._take_first(queue, now, requests, expired)
                self.counters.waited([now - request.queued_at for request in requests if request.done == 0])
        complete(expired)
        return requests

    def put_back(self, requests: Sequence[PushRequest]) -> None:
        """These requests have run for a while and are not over."""
        with self.lock:
            for request in requests:
                request.stage = QUEUED
                self._ready.append(request.queue)

    def finish(self, requests: Sequence[PushRequest]) -> None:
        """These requests are over, and their queues are ready for the next ones; with the lock held."""
        now = time.monotonic()
        for request in requests:
            request.stage = OVER
            queue = request.queue
            queue.last_used = now
            queue.queued = False
            queue.requests.popleft()
            if queue.requests:
                self._line_up(queue)
            elif queue.closed:
                self._forget(queue)
        self.pending -= len(requests)
        if self._waiting:
            self._give_places()
        self._moved.notify_all()

    def _most(self, streams: int) -> int:
        """Rows of a batch when so many streams take part."""
        return max(1, min(self._max_batch, streams if streams < _MANY else (streams + 1) // 2))

    def _await_batch(self, wait: bool) -> bool:
        """Return when the batch is full, everybody is there, or the first has waited for long enough.

        False if there is nothing to run and never will be; without ``wait``, if there is nothing to run now.
        """
        while not self.closing:
            ready = len(self._ready)
            target = self._most(len(self.resident))
            timeout = None
            if ready:
                # The first in the queue has waited longest, unless it was withdrawn.
                first = self._ready[0]
                since = first.requests[0].queued_at if first.requests else 0.0
                timeout = since + self._max_wait_s - time.monotonic()
                if ready >= target or timeout <= 0:
                    break
            if not wait:
                return False
            self._wake_at = target if ready else 1
            self._work.wait(timeout)
            self._wake_at = 0
        return bool(self._ready) or not self.closing

    def _take_first(
        self, queue: StreamQueue, now: float, requests: list[PushRequest], expired: list[PushRequest]
    ) -> None:
        while queue.requests and queue.requests[0].stage is QUEUED:
            request = queue.requests[0]
            if request.abandoned:
                self._drop(request, PoolError(CANCELLED), "cancelled")
                continue
            if request.deadline is not None and now > request.deadline and request.done == 0:
                self._drop(request, DeadlineExceeded(_EXPIRED), "expired")
                expired.append(request)
                continue
            request.stage = RUNNING
            requests.append(request)
            return
        queue.queued = False
