"""The books of a pool: which streams there are, what waits in their queues, and how that changes.

One lock guards everything here, the life of each stream included (open, handed over, closed).

An exception of a signal handler may break off whoever changes these books, anywhere.  So they are marked while they are
changed, and whoever finds the mark derives anew all that can be derived: which rows are free, who is ready, how many are
pending.  What cannot be derived changes by one operation: the stage of a request, where a stream is, who is registered.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Sequence

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import PoolClosedError, PoolError, RnncoreError, StateError, StreamEvictedError
from rnncore.runtime.interrupts import set_together
from rnncore.runtime.pool.metrics import PoolCounters
from rnncore.runtime.pool.notifier import Notifier
from rnncore.runtime.pool.request import OVER, QUEUED, RUNNING, WAITING, Owner, PushRequest, StreamQueue
from rnncore.runtime.session.process_fork import watch
from rnncore.runtime.streaming.snapshot import Snapshot
from rnncore.runtime.streaming.state_rows import StateRows
from rnncore.runtime.tensors.specs import Layout

CANCELLED = "the push was cancelled before it was run"
_FORKED = "this pool belongs to the process that this one was forked from: open a new one with model.pool()"
_STREAM_CLOSED = "the stream is closed: open a new one with pool.open()"
_EVICTED = (
    "the stream was idle and its state was handed to on_evict as {!r}: go on from those bytes with pool.restore(blob)"
)

_FIRST_STREAMS = 64  # so many rows of states are made at once; doubled when they run out


class Books:
    """Queues, places and states of the streams of one pool.

    max_pending: so many pushes have a place.  max_streams: so many streams are resident at most, None for any number.
    """

    def __init__(self, layout: Layout, *, max_pending: int, max_streams: int | None) -> None:
        self.lock = threading.Lock()
        self.resident = StateRows(layout, _FIRST_STREAMS)
        self.counters = PoolCounters()
        self.queues: dict[str, StreamQueue] = {}
        # Notes of what is still to be done, made by one operation each, from anywhere.
        self.dropped: deque[Owner] = deque()  # of streams that were garbage-collected open
        self.departed: deque[StreamQueue] = deque()  # streams that on_evict has taken over
        self.withdrawn: deque[PushRequest] = deque()  # pushes that nobody waits for any more
        self.closing = False
        self.forked = False
        self.pending = 0  # pushes that have a place in the queue, or are being run
        self.notifier = Notifier(self.cancel)
        self._torn = False  # somebody is changing the books, or was broken off while doing so
        self._waiting: deque[PushRequest] = deque()  # without a place; withdrawn ones are skipped when they come up
        self._max_streams = max_streams
        self._max_pending = max_pending
        self._ready: deque[StreamQueue] = deque()
        self._running = 0  # streams in batches
        self._gate = threading.Lock()  # what the worker sleeps at whose turn it is to take a batch
        self._gate.acquire()
        self._wake_at = 1  # so many ready streams wake it; 0 while no worker sleeps there
        watch(self)

    def after_process_fork(self) -> None:
        """In a forked child there is no worker, and locks may never open."""
        self.forked = True

    def check_process(self) -> None:
        """Raise PoolClosedError in a forked child."""
        if self.forked:
            raise PoolClosedError(_FORKED)

    def cancel(self, request: PushRequest) -> None:
        """Nobody waits for this request any more: drop it, at once or before its next call if it needs one."""
        self.withdrawn.append(request)
        self.settle()

    def settle(self) -> None:
        """Do what has been noted."""
        with self.lock:
            self.sweep()

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

    def make_resident(self, queues: Sequence[StreamQueue]) -> None:
        """Bring the states of these streams, ``max_streams`` at most, into the batch arrays; with the lock held.

        Others make room: those that were used longest ago, be it that pushes of theirs are queued; none that is in a batch.
        """
        absent = [queue for queue in queues if queue.row < 0]
        if self._max_streams is not None:
            excess = len(self.resident) + len(absent) - self._max_streams
            if excess > 0:
                taken = set(queues)
                others = [q for q in self.queues.values() if q.row >= 0 and q not in taken and not q.runs]
                for queue in heapq.nsmallest(excess, others, key=lambda queue: queue.last_used):
                    self.park(queue)
        for queue in absent:
            if queue.parked is None:
                raise RuntimeError(f"the stream {queue.key!r} has no state: this is an error of rnncore")
            row = self.resident.allocate(queue.parked)
            set_together((queue, queue), ("row", "parked"), (row, None))

    def sweep(self) -> None:
        """Do what has been noted; each note goes when it has been done."""
        if self._torn:
            self._mend()
        while self.dropped:
            self._release(self.dropped[0].queue)
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
        self._running -= len(requests)
        if self._waiting:
            self._give_places()

    def _withdraw(self, request: PushRequest) -> None:
        if request.stage is RUNNING:
            request.abandoned = True
        elif request.stage is not OVER and request in request.queue.requests:
            self._torn = True
            self._drop(request, PoolError(CANCELLED), "cancelled")
            self._torn = False

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
        queue.owner = None
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
        self._running = sum(stage is RUNNING for stage in firsts.values())
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
