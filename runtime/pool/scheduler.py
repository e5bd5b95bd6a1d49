"""Who is next: the queue of a pool, from the push that joins it to the answer that is told.

A push is one ticket in the lane of its stream.  Lanes whose first ticket can be run are ready, in the order in which they
became so.  The lock guards everything here; the worker (:mod:`rnncore.runtime.pool.worker`) takes a batch, runs it without
the lock, and reports what is over.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from rnncore.runtime.batches.items import Items
from rnncore.runtime.calls.engine import Engine
from rnncore.runtime.calls.forks import watch
from rnncore.runtime.errors import DeadlineExceeded, Overloaded, PoolClosedError, PoolError, RnncoreError, StateError
from rnncore.runtime.pool.counters import PoolCounters
from rnncore.runtime.pool.resident import Resident
from rnncore.runtime.pool.ticket import OVER, QUEUED, RUNNING, Lane, Stage, Ticket, settle

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
        self.lanes: dict[str, Lane] = {}
        self.dropped: deque[Lane] = deque()  # streams that were garbage-collected open
        self.closing = False
        self.forked = False
        self.pending = 0  # pushes that have a place in the queue, or are being run
        self._waits = waits
        self._waiting: deque[Ticket] = deque()  # pushes without a place; withdrawn ones are skipped when they come up
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1e3
        self._max_pending = max_pending
        self._ready: deque[Lane] = deque()
        self._work = threading.Condition(self.lock)
        self._wake_at = 1  # so many ready streams wake the worker; 0 while it is at work
        self._moved = threading.Condition(self.lock)
        watch(self)

    # ------------------------------------------------------------------------------------------- from any thread

    def after_fork(self) -> None:
        """In a forked child there is no worker, and locks may never open."""
        self.forked = True

    def check_process(self) -> None:
        """Raise PoolClosedError in a forked child."""
        if self.forked:
            raise PoolClosedError(_FORKED)

    def submit(self, ticket: Ticket) -> bool:
        """Queue a ticket.  False if it has to wait for a place: it is told, and then handed in with :meth:`fill`.

        Raises PoolClosedError, StateError (the stream is closed) or Overloaded.
        """
        if self.forked:
            self.check_process()
        lane = ticket.lane
        with self.lock:
            if self.closing:
                raise PoolClosedError(_CLOSED)
            if lane.closed:
                raise StateError(_STREAM_CLOSED)
            if self.pending >= self._max_pending or self._waiting:
                if not self._waits:
                    self.counters.totals["overloaded"] += 1
                    raise Overloaded(
                        f"{self.pending} pushes are pending, the pool takes max_pending={self._max_pending}: try again "
                        "later, or open the pool with on_overload='wait'"
                    )
                ticket.stage = Stage.WAITING
                ticket.items = {}  # copied when there is a place: those who wait cost no memory
                self._waiting.append(ticket)
                lane.tickets.append(ticket)
                return False
            self.pending += 1
            self.counters.totals["pushes"] += 1
            lane.tickets.append(ticket)
            if not lane.queued and lane.tickets[0] is ticket:  # as in _line_up, without the call
                lane.queued = True
                self._ready.append(lane)
                if self._wake_at and len(self._ready) >= self._wake_at:
                    self._work.notify()
        return True

    def fill(self, ticket: Ticket, items: Items) -> None:
        """Queue a ticket that had to wait and now has its place; raises what happened to it in the meantime."""
        with self.lock:
            if ticket.stage is Stage.WAITING:
                ticket.items = items
                ticket.stage = QUEUED
                self._line_up(ticket.lane)
        if ticket.error is not None and ticket.stage is OVER:
            raise ticket.error

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for this ticket any more: drop it, at once or before its next call if it needs one."""
        with self.lock:
            if ticket.stage is RUNNING:
                ticket.abandoned = True
            elif ticket.stage is not OVER:
                self._drop(ticket, PoolError(CANCELLED), "cancelled")

    def expire(self, ticket: Ticket) -> None:
        """The time of this ticket is up: drop it and tell whoever waits, unless it has begun to run."""
        with self.lock:
            if ticket.stage in (RUNNING, OVER) or ticket.done:
                return
            self._drop(ticket, DeadlineExceeded(_EXPIRED), "expired")
        settle([ticket])

    def close(self, drain: bool) -> None:
        """Take no more pushes; those that are queued are run or dropped, those that wait for a place are dropped."""
        stages = (Stage.WAITING,) if drain else (Stage.WAITING, QUEUED)
        with self.lock:
            self.closing = True
            tickets = [t for lane in self.lanes.values() for t in lane.tickets if t.stage in stages]
            for ticket in tickets:
                self._drop(ticket, PoolClosedError(_CLOSED), "cancelled")
            self._work.notify()
        settle(tickets)

    # -------------------------------------------------------------------------------------------- with the lock held

    @property
    def waiting(self) -> int:
        """Pushes that wait for a place in the queue."""
        return sum(ticket.stage is Stage.WAITING for ticket in self._waiting)

    def quiet(self, lane: Lane) -> bool:
        """Wait for calls whose answers nobody wants; True if the lane then has no push left."""
        while lane.tickets and all(ticket.abandoned for ticket in lane.tickets):
            self._moved.wait()
        return not lane.tickets

    def release(self, lane: Lane) -> list[Ticket]:
        """Close a lane; its tickets that are not running are dropped and returned to be settled."""
        if lane.closed:
            return []
        lane.closed = True
        dropped = [ticket for ticket in lane.tickets if ticket.stage is not RUNNING]
        for ticket in dropped:
            self._drop(ticket, StateError(_STREAM_CLOSED), "cancelled")
        if not lane.tickets:
            self._forget(lane)
        return dropped

    def sweep(self) -> None:
        """Release the lanes of streams that were dropped without being closed."""
        while self.dropped:
            self.release(self.dropped.popleft())

    def _line_up(self, lane: Lane) -> None:
        """Queue a lane that is not queued, if its first ticket can be run."""
        if lane.queued or not lane.tickets or lane.tickets[0].stage is not QUEUED:
            return
        lane.queued = True
        self._ready.append(lane)
        if self._wake_at and len(self._ready) >= self._wake_at:
            self._work.notify()

    def _drop(self, ticket: Ticket, error: RnncoreError, count: str) -> None:
        placed = ticket.stage is not Stage.WAITING or ticket.placed
        ticket.stage = OVER
        ticket.error = error
        ticket.carry = None
        ticket.lane.tickets.remove(ticket)
        self.counters.totals[count] += 1
        self._line_up(ticket.lane)
        self._moved.notify_all()
        if placed:
            self.pending -= 1
            self._give_places()

    def _give_places(self) -> None:
        """Places that have become free go to those who have waited longest."""
        while self._waiting and self.pending < self._max_pending:
            given: list[Ticket] = []
            while self._waiting and self.pending < self._max_pending:
                ticket = self._waiting.popleft()
                if ticket.stage is Stage.WAITING:
                    ticket.placed = True
                    self.pending += 1
                    self.counters.totals["pushes"] += 1
                    given.append(ticket)
            for ticket in settle(given):  # their event loop is gone, and they with it
                self._drop(ticket, PoolError(CANCELLED), "cancelled")

    def _forget(self, lane: Lane) -> None:
        self.lanes.pop(lane.key, None)
        if lane.row >= 0:
            self.resident.release(lane.row)
            lane.row = -1
        lane.parked = None

    # --------------------------------------------------------------------------------------------- from the worker

    def take(self, *, wait: bool = True) -> list[Ticket] | None:
        """Wait for a batch worth running; None when the pool is closed and everything was answered.

        wait: if False and there is no such batch, or there will be none, return an empty list at once.
        """
        expired: list[Ticket] = []
        tickets: list[Ticket] = []
        with self.lock:
            while not tickets and not expired:
                self.sweep()
                if not self._await_batch(wait):
                    return None if wait else []
                now = time.monotonic()
                most = max(self._most(len(self.resident)), self._most(len(self._ready)))
                ready = self._ready
                while ready and len(tickets) < most:
                    lane = ready.popleft()
                    first = lane.tickets[0] if lane.tickets else None
                    if first is not None and first.deadline is None and first.stage is QUEUED and not first.abandoned:
                        first.stage = RUNNING  # as in _take_first, without the call
                        tickets.append(first)
                    else:
                        self._take_first(lane, now, tickets, expired)
                self.counters.waited([now - ticket.queued_at for ticket in tickets if ticket.done == 0])
        settle(expired)
        return tickets

    def put_back(self, tickets: Sequence[Ticket]) -> None:
        """These tickets have run for a while and are not over."""
        with self.lock:
            for ticket in tickets:
                ticket.stage = QUEUED
                self._ready.append(ticket.lane)

    def finish(self, tickets: Sequence[Ticket]) -> None:
        """These tickets are over, and their lanes are ready for the next ones; with the lock held."""
        now = time.monotonic()
        for ticket in tickets:
            ticket.stage = OVER
            lane = ticket.lane
            lane.last_used = now
            lane.queued = False
            lane.tickets.popleft()
            if lane.tickets:
                self._line_up(lane)
            elif lane.closed:
                self._forget(lane)
        self.pending -= len(tickets)
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
                since = first.tickets[0].queued_at if first.tickets else 0.0
                timeout = since + self._max_wait_s - time.monotonic()
                if ready >= target or timeout <= 0:
                    break
            if not wait:
                return False
            self._wake_at = target if ready else 1
            self._work.wait(timeout)
            self._wake_at = 0
        return bool(self._ready) or not self.closing

    def _take_first(self, lane: Lane, now: float, tickets: list[Ticket], expired: list[Ticket]) -> None:
        while lane.tickets and lane.tickets[0].stage is QUEUED:
            ticket = lane.tickets[0]
            if ticket.abandoned:
                self._drop(ticket, PoolError(CANCELLED), "cancelled")
                continue
            if ticket.deadline is not None and now > ticket.deadline and ticket.done == 0:
                self._drop(ticket, DeadlineExceeded(_EXPIRED), "expired")
                expired.append(ticket)
                continue
            ticket.stage = RUNNING
            tickets.append(ticket)
            return
        lane.queued = False
