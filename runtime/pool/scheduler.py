"""Who is next: the queue of a pool, from the push that joins it to the answer that is told.

A push is one request in the queue of its stream.  Streams whose first request can be run are ready, in the order in which
they became so.  One lock guards everything here, the life of each stream included (open, handed over, closed); the worker
(:mod:`rnncore.runtime.pool.worker`) takes a batch, runs it without the lock, and reports what is over.

An exception of a signal handler may break off whoever changes these books, anywhere.  So they are marked while they are
changed, and whoever finds the mark derives anew all that can be derived: which rows are free, who is ready, how many are
pending.  What cannot be derived changes by one operation: the stage of a request, where a stream is, who is registered.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import (
    DeadlineExceeded,
    Overloaded,
    PoolClosedError,
    PoolError,
    RnncoreError,
    StateError,
    StreamBusyError,
    StreamEvictedError,
)
from rnncore.runtime.interrupts import set_together
from rnncore.runtime.pool.metrics import PoolCounters
from rnncore.runtime.pool.notifier import Notifier
from rnncore.runtime.pool.request import OVER, QUEUED, RUNNING, WAITING, PushRequest, StreamQueue
from rnncore.runtime.pool.resident import Resident
from rnncore.runtime.session.process_fork import watch
from rnncore.runtime.session.run import Items
from rnncore.runtime.session.session import Engine
from rnncore.runtime.streaming.snapshot import Snapshot

T = TypeVar("T")

CANCELLED = "the push was cancelled before it was run"
_EXPIRED = "the push waited longer than its timeout and was not applied: the pool is busier than that, or is closing"
_CLOSED = "the pool is closed: open a new one with model.pool()"
_FORKED = "this pool belongs to the process that this one was forked from: open a new one with model.pool()"
_STREAM_CLOSED = "the stream is closed: open a new one with pool.open()"
_EVICTED = (
    "the stream was idle and its state was handed to on_evict as {!r}: go on from those bytes with pool.restore(blob)"
)
_LOOP_WAITS = (
    "this push would wait for one that only the event loop of this very thread can go on with, so for ever: use "
    "`await stream.apush(...)` here"
)

_MANY = 32
"""So many streams are run in two halves: answers of one half are handed out, and pushed on, while the other half runs."""

_LONGEST_NAP_S = 1.0
"""A sleeping worker looks up so often: whoever was broken off before it could wake it has nothing lost but time."""

_POLL_S = 1e-3


class Scheduler:
    """Queue and states of one pool.

    max_pending: so many pushes have a place in the queue.  waits: a push beyond that waits for one, else it is refused.
    max_streams: so many streams are resident at most, None for any number.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch: int,
        max_wait_ms: float,
        max_pending: int,
        waits: bool = False,
        max_streams: int | None = None,
    ) -> None:
        self.engine = engine
        self.lock = threading.Lock()
        self.resident = Resident(engine.layout)
        self.counters = PoolCounters()
        self.queues: dict[str, StreamQueue] = {}
        # Notes of what is still to be done, made by one operation each, from anywhere.
        self.dropped: deque[StreamQueue] = deque()  # streams that were garbage-collected open
        self.departed: deque[StreamQueue] = deque()  # streams that on_evict has taken over
        self.withdrawn: deque[PushRequest] = deque()  # pushes that nobody waits for any more
        self.closing = False
        self.forked = False
        self.pending = 0  # pushes that have a place in the queue, or are being run
        self.notifier = Notifier(self.cancel)
        self._torn = False  # somebody is changing the books, or was broken off while doing so
        self._waits = waits
        self._waiting: deque[PushRequest] = deque()  # without a place; withdrawn ones are skipped when they come up
        self._max_streams = max_streams
        self._max_batch = max_batch if max_streams is None else min(max_batch, max_streams)
        self._max_wait_s = max_wait_ms / 1e3
        self._max_pending = max_pending
        self._ready: deque[StreamQueue] = deque()
        self._gate = threading.Lock()  # what the worker sleeps at
        self._gate.acquire()
        self._wake_at = 1  # so many ready streams wake the worker; 0 while it is at work
        watch(self)

    # ------------------------------------------------------------------------------------------- from any thread

    def after_process_fork(self) -> None:
        """In a forked child there is no worker, and locks may never open."""
        self.forked = True

    def check_process(self) -> None:
        """Raise PoolClosedError in a forked child."""
        if self.forked:
            raise PoolClosedError(_FORKED)

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

    def cancel(self, request: PushRequest) -> None:
        """Nobody waits for this request any more: drop it, at once or before its next call if it needs one."""
        self.withdrawn.append(request)
        self.settle()

    def settle(self) -> None:
        """Do what has been noted."""
        with self.lock:
            self.sweep()

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

    # -------------------------------------------------------------------------------------------- with the lock held

    @property
    def waiting(self) -> int:
        """Pushes that wait for a place in the queue."""
        return sum(request.stage is WAITING for request in self._waiting)

    def check_usable(self, queue: StreamQueue) -> None:
        """Raise StateError if the stream is closed, StreamEvictedError if its state was handed over."""
        if queue.closed:
            raise StateError(_STREAM_CLOSED)
        if queue.evicted:
            raise StreamEvictedError(_EVICTED.format(queue.key))

    def register(self, queue: StreamQueue, states: Sequence[Array] | None) -> None:
        """A new stream, resident, at ``states`` or the initial ones."""
        self._torn = True
        queue.row = self.resident.allocate(states)
        queue.last_used = time.monotonic()
        self.queues[queue.key] = queue
        self._torn = False

    def replace(self, queue: StreamQueue, snapshot: Snapshot) -> None:
        """The stream goes on from ``snapshot``."""
        before = queue.row
        self._torn = True
        if before < 0:
            set_together((queue, queue), ("parked", "steps"), (snapshot.states, snapshot.steps))
        else:  # another row, so that no state is half the old one
            row = self.resident.allocate(snapshot.states)
            set_together((queue, queue), ("row", "steps"), (row, snapshot.steps))
            self.resident.release(before)
        self._torn = False

    def park(self, queue: StreamQueue) -> None:
        """Take the state of a stream, of which no push is being run in this moment, out of the batch arrays."""
        row = queue.row
        if row < 0:
            return
        self._torn = True
        set_together((queue, queue), ("parked", "row"), (self.resident.read(row), -1))
        self.resident.release(row)
        self.counters.totals["evicted"] += 1
        self._torn = False

    def sweep(self) -> None:
        """Do what has been noted; each note goes when it has been done."""
        if self._torn:
            self._mend()
        while self.dropped:
            self._release(self.dropped[0])
            self.dropped.popleft()
        while self.departed:
            queue = self.departed[0]
            if self.queues.get(queue.key) is queue:
                self._torn = True
                self._forget(queue)
                self._torn = False
            self.departed.popleft()
        while self.withdrawn:
            self._withdraw(self.withdrawn[0])
            self.withdrawn.popleft()

    def _withdraw(self, request: PushRequest) -> None:
        if request.stage is RUNNING:
            request.abandoned = True
        elif request.stage is not OVER and request in request.queue.requests:
            self._torn = True
            self._drop(request, PoolError(CANCELLED), "cancelled")
            self._torn = False

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

    def _release(self, queue: StreamQueue) -> None:
        self._torn = True
        queue.closed = True
        for request in [request for request in queue.requests if request.stage is not RUNNING]:
            self._drop(request, StateError(_STREAM_CLOSED), "cancelled")
        if not queue.requests:
            self._forget(queue)
        self._torn = False

    def _line_up(self, queue: StreamQueue) -> None:
        """Queue a queue that is not queued, if its first request can be run."""
        if queue.queued or not queue.requests or queue.requests[0].stage is not QUEUED:
            return
        queue.queued = True
        self._ready.append(queue)
        if self._wake_at and len(self._ready) >= self._wake_at:
            self._wake()

    def _drop(self, request: PushRequest, error: RnncoreError, count: str) -> None:
        """Take a request back, and have whoever waits told; as long as it is in its queue, this can be done again."""
        placed = request.stage is not WAITING or request.placed
        set_together((request, request, request), ("error", "carry", "stage"), (error, None, OVER))
        self.notifier.tell_later([request])
        request.queue.requests.remove(request)
        self.counters.totals[count] += 1
        self._line_up(request.queue)
        if placed:
            self.pending -= 1
            self._give_places()

    def _give_places(self) -> None:
        """Places that have become free go to those who have waited longest."""
        given: list[PushRequest] = []
        while self._waiting and self.pending < self._max_pending:
            request = self._waiting.popleft()
            if request.stage is WAITING and not request.placed:
                request.placed = True
                self.pending += 1
                self.counters.totals["pushes"] += 1
                given.append(request)
        if given:
            self.notifier.tell_later(given)

    def _forget(self, queue: StreamQueue) -> None:
        row = queue.row
        if self.queues.get(queue.key) is queue:
            del self.queues[queue.key]
        set_together((queue, queue), ("row", "parked"), (-1, None))
        if row >= 0:
            self.resident.release(row)

    def _mend(self) -> None:
        """Somebody was broken off in the middle of a change: derive anew what follows from the requests and streams."""
        for queue in list(self.queues.values()):
            for request in list(queue.requests):
                if request.stage is OVER or (queue.closed and request.stage is not RUNNING):
                    error = request.error or StateError(_STREAM_CLOSED)
                    set_together((request, request), ("error", "stage"), (error, OVER))
                    self.notifier.tell_later([request])
                    queue.requests.remove(request)
            if queue.closed and not queue.requests:
                self._forget(queue)
        queues = list(self.queues.values())
        self.resident.keep([queue.row for queue in queues if queue.row >= 0])
        requests = [request for queue in queues for request in queue.requests]
        told = [request for request in requests if request.stage is WAITING and request.placed]
        known = {id(request) for request in self._waiting}
        without = [r for r in requests if r.stage is WAITING and not r.placed and id(r) not in known]
        self._waiting.extend(without)
        self.pending = sum(request.stage is not WAITING or request.placed for request in requests)
        ready = dict.fromkeys([*self._ready, *queues])
        firsts = {queue: queue.requests[0].stage for queue in ready if queue.requests}
        self._ready = deque(queue for queue, stage in firsts.items() if stage is QUEUED)
        for queue in queues:
            queue.queued = firsts.get(queue) in (QUEUED, RUNNING)
        self._torn = False
        if told:
            self.notifier.tell_later(told)  # once more, who may not know
        self._give_places()
        self._wake()

    def _wake(self) -> None:
        if self._gate.locked():
            self._gate.release()

    # --------------------------------------------------------------------------------------------- from the worker

    def take(self, *, wait: bool = True) -> list[PushRequest] | None:
        """Wait for a batch worth running; None when the pool is closed and everything was answered.

        wait: if False and there is no such batch, or there will be none, return an empty list at once.
        """
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
                self.counters.waited([now - request.queued_at for request in requests if request.done == 0])
        return requests

    def put_back(self, requests: Sequence[PushRequest]) -> None:
        """These requests have run for a while and are not over."""
        with self.lock:
            if self._torn:
                self._mend()
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

    def make_resident(self, queues: Sequence[StreamQueue]) -> None:
        """Bring the states of these streams, ``max_streams`` at most, into the batch arrays; with the lock held.

        Others make room: those that were used longest ago, be it that pushes of theirs are queued.
        """
        absent = [queue for queue in queues if queue.row < 0]
        if self._max_streams is not None:
            excess = len(self.resident) + len(absent) - self._max_streams
            if excess > 0:
                taken = set(queues)
                others = [queue for queue in self.queues.values() if queue.row >= 0 and queue not in taken]
                for queue in heapq.nsmallest(excess, others, key=lambda queue: queue.last_used):
                    self.park(queue)
        for queue in absent:
            if queue.parked is None:
                raise RuntimeError(f"the stream {queue.key!r} has no state: this is an error of rnncore")
            row = self.resident.allocate(queue.parked)
            set_together((queue, queue), ("row", "parked"), (row, None))

    def _most(self, streams: int) -> int:
        """Rows of a batch when so many streams take part."""
        return max(1, min(self._max_batch, streams if streams < _MANY else (streams + 1) // 2))

    def _await_batch(self, wait: bool) -> bool:
        """Return when the batch is full, everybody is there, or the first has waited for long enough.

        False if there is nothing to run and never will be; without ``wait``, if there is nothing to run now.
        """
        while True:
            self.sweep()
            ready = len(self._ready)
            if self.closing:
                # Whoever has a place and does not come with its chunk was dropped when the pool was closed.
                return bool(ready)
            target = self._most(len(self.resident))
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
