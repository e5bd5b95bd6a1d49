"""The one thread of a pool: it takes what is queued, runs it in batches, and hands out the answers.

A cycle takes at most one push of each stream.  It runs them in one or more calls: all go ahead together, those with few
steps are answered and leave, the rest goes on, until ``slice_steps`` have been run; what is unfinished then joins the
next cycle, so a long chunk never holds up short ones for longer than that.

The lock guards everything but the calls themselves.  States are resident (stacked); a push that takes several calls
carries its own state along, and only its last call changes that of its stream.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from rnncore.runtime.engine import Engine
from rnncore.runtime.errors import DeadlineExceeded, Overloaded, PoolClosedError, PoolError, RnncoreError, StateError
from rnncore.runtime.items import run_stacked
from rnncore.runtime.layout import Array
from rnncore.runtime.origin import logger
from rnncore.runtime.pool_counters import PoolCounters
from rnncore.runtime.resident import Resident
from rnncore.runtime.slices import plan_slice, plan_whole
from rnncore.runtime.ticket import Lane, Stage, Ticket, join_parts, settle

_EXPIRED = "the push waited longer than its timeout and was not applied: the pool is busier than that, or is closing"
_CANCELLED = "the push was cancelled before it was run"
_CLOSED = "the pool is closed: open a new one with model.pool()"
_FORKED = "this pool belongs to the process that this one was forked from: open a new one with model.pool()"
_STREAM_CLOSED = "the stream is closed: open a new one with pool.open()"


class Scheduler:
    """Queue, states and worker of one pool."""

    def __init__(
        self, engine: Engine, *, max_batch: int, max_wait_ms: float, max_pending: int | None, slice_steps: int
    ) -> None:
        self.engine = engine
        self.lock = threading.Lock()
        self.resident = Resident(engine.layout)
        self.counters = PoolCounters()
        self.lanes: dict[str, Lane] = {}
        self.dropped: deque[Lane] = deque()  # streams that were garbage-collected open
        self.closing = False
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1e3
        self._max_pending = max_pending
        self._slice_steps = slice_steps
        self._sliceable = not engine.layout.timeless_outputs
        self._paddable = engine.layout.lengths is not None
        self._ready: deque[Lane] = deque()
        self._pending = 0
        self._work = threading.Condition(self.lock)
        self._wake_at = 1  # so many ready streams wake the worker; 0 while it is at work
        self._moved = threading.Condition(self.lock)
        self.process = os.getpid()
        self._worker = threading.Thread(target=self._run_worker, name="rnncore-pool", daemon=True)
        self._worker.start()

    # ------------------------------------------------------------------------------------------- from any thread

    @property
    def pending(self) -> int:
        """Pushes that were accepted and are not over."""
        return self._pending

    def check_process(self) -> None:
        """Raise PoolClosedError in a forked child, where there is no worker and locks may never open."""
        if os.getpid() != self.process:
            raise PoolClosedError(_FORKED)

    def submit(self, ticket: Ticket) -> None:
        """Queue a ticket; PoolClosedError, StateError (the stream is closed) or Overloaded otherwise."""
        self.check_process()
        lane = ticket.lane
        with self.lock:
            if self.closing:
                raise PoolClosedError(_CLOSED)
            if lane.closed:
                raise StateError(_STREAM_CLOSED)
            if self._max_pending is not None and self._pending >= self._max_pending:
                self.counters.totals["overloaded"] += 1
                raise Overloaded(
                    f"{self._pending} pushes are pending, the pool takes max_pending={self._max_pending}: try again "
                    "later, or open the pool with on_overload='wait'"
                )
            self._pending += 1
            self.counters.totals["pushes"] += 1
            lane.tickets.append(ticket)
            if not lane.queued:
                lane.queued = True
                self._ready.append(lane)
                if self._wake_at and len(self._ready) >= self._wake_at:
                    self._work.notify()

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for this ticket any more: drop it, at once or before its next call if it needs one."""
        with self.lock:
            if ticket.stage is Stage.QUEUED:
                self._drop(ticket, PoolError(_CANCELLED), "cancelled")
            elif ticket.stage is Stage.RUNNING:
                ticket.abandoned = True

    def expire(self, ticket: Ticket) -> None:
        """The time of this ticket is up: drop it and tell whoever waits, unless it has begun to run."""
        with self.lock:
            if ticket.stage is not Stage.QUEUED or ticket.done:
                return
            self._drop(ticket, DeadlineExceeded(_EXPIRED), "expired")
        settle([ticket])

    def quiet(self, lane: Lane) -> bool:
        """Wait, with the lock held, for calls whose answers nobody wants; True if the lane then has no push left."""
        while lane.tickets and all(ticket.abandoned for ticket in lane.tickets):
            self._moved.wait()
        return not lane.tickets

    def release(self, lane: Lane) -> list[Ticket]:
        """Close a lane, with the lock held; its queued tickets are dropped and returned to be settled."""
        if lane.closed:
            return []
        lane.closed = True
        dropped = [ticket for ticket in lane.tickets if ticket.stage is Stage.QUEUED]
        for ticket in dropped:
            self._drop(ticket, StateError(_STREAM_CLOSED), "cancelled")
        if not lane.tickets:
            self._forget(lane)
        return dropped

    def sweep(self) -> None:
        """Release, with the lock held, the lanes of streams that were dropped without being closed."""
        while self.dropped:
            self.release(self.dropped.popleft())

    def stop(self, drain: bool = True, timeout_s: float | None = None) -> bool:
        """Take no more pushes, run those that are queued or drop them, and end the worker; False if it takes longer."""
        if os.getpid() != self.process:
            return True
        with self.lock:
            self.closing = True
            tickets = (
                [] if drain else [t for lane in self.lanes.values() for t in lane.tickets if t.stage is Stage.QUEUED]
            )
            for ticket in tickets:
                self._drop(ticket, PoolClosedError(_CLOSED), "cancelled")
            self._work.notify()
        settle(tickets)
        self._worker.join(timeout_s)
        return not self._worker.is_alive()

    # -------------------------------------------------------------------------------------------- with the lock held

    def _drop(self, ticket: Ticket, error: RnncoreError, count: str) -> None:
        ticket.stage = Stage.OVER
        ticket.error = error
        ticket.carry = None
        ticket.lane.tickets.remove(ticket)
        self._pending -= 1
        self.counters.totals[count] += 1

    def _forget(self, lane: Lane) -> None:
        self.lanes.pop(lane.key, None)
        if lane.row >= 0:
            self.resident.release(lane.row)
            lane.row = -1
        lane.parked = None

    # ------------------------------------------------------------------------------------------------ in the worker

    def _run_worker(self) -> None:
        while True:
            tickets = self._next_tickets()
            if tickets is None:
                return
            try:
                self._run_cycle(tickets)
            except Exception as error:  # whatever it is, the pool lives on and nobody waits for ever
                logger.exception("a cycle of the pool failed")
                for ticket in tickets:
                    if ticket.stage is Stage.RUNNING:
                        self._fail(ticket, error)

    def _next_tickets(self) -> list[Ticket] | None:
        """Wait for a batch worth running; None when the pool is closed and everything was answered."""
        expired: list[Ticket] = []
        tickets: list[Ticket] = []
        with self.lock:
            while not tickets and not expired:
                self.sweep()
                if not self._await_batch():
                    return None
                now = time.monotonic()
                while self._ready and len(tickets) < self._max_batch:
                    self._take_first(self._ready.popleft(), now, tickets, expired)
                self.counters.waited([now - ticket.queued_at for ticket in tickets if ticket.done == 0])
        settle(expired)
        return tickets

    def _await_batch(self) -> bool:
        """Return when the batch is full, everybody is there, or the first has waited for long enough."""
        while not self.closing:
            ready = len(self._ready)
            target = min(self._max_batch, max(1, len(self.resident)))
            timeout = None
            if ready:
                # The first in the queue has waited longest, unless it was withdrawn.
                first = self._ready[0]
                since = first.tickets[0].queued_at if first.tickets else 0.0
                timeout = since + self._max_wait_s - time.monotonic()
                if ready >= target or timeout <= 0:
                    break
            self._wake_at = target if ready else 1
            self._work.wait(timeout)
            self._wake_at = 0
        return bool(self._ready) or not self.closing

    def _take_first(self, lane: Lane, now: float, tickets: list[Ticket], expired: list[Ticket]) -> None:
        while lane.tickets:
            ticket = lane.tickets[0]
            if ticket.abandoned:
                self._drop(ticket, PoolError(_CANCELLED), "cancelled")
                continue
            if ticket.deadline is not None and now > ticket.deadline and ticket.done == 0:
                self._drop(ticket, DeadlineExceeded(_EXPIRED), "expired")
                expired.append(ticket)
                continue
            ticket.stage = Stage.RUNNING
            tickets.append(ticket)
            return
        lane.queued = False

    def _run_cycle(self, tickets: list[Ticket]) -> None:
        left = self._slice_steps
        active = tickets
        while active and (left > 0 or not self._sliceable):
            if self._sliceable:
                chosen, steps = plan_slice([min(t.steps - t.done, left) for t in active], paddable=self._paddable)
                left -= max(steps, 1)
            else:
                chosen, steps = plan_whole([t.steps - t.done for t in active], paddable=self._paddable)
            chosen = self._alike(active, chosen)
            self._run([active[i] for i in chosen], steps)
            active = [ticket for ticket in active if ticket.stage is Stage.RUNNING]
        with self.lock:
            for ticket in active:
                ticket.stage = Stage.QUEUED
                self._ready.append(ticket.lane)

    def _alike(self, tickets: Sequence[Ticket], chosen: list[int]) -> list[int]:
        """Those of ``chosen`` whose free axes agree with the first: only they can share arrays."""
        if self.engine.layout.fixed:
            return chosen
        shapes = [self._free_shape(tickets[i]) for i in chosen]
        return [i for i, shape in zip(chosen, shapes, strict=True) if shape == shapes[0]]

    def _free_shape(self, ticket: Ticket) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(d for axis, d in enumerate(ticket.items[slot.name].shape) if axis != slot.item_time_axis)
            for slot in self.engine.layout.inputs
        )

    def _run(self, tickets: list[Ticket], steps: int) -> None:
        """Run ``steps`` of each ticket in one call; if it fails, each in a call of its own, to find out who is to blame."""
        try:
            self._call(tickets, steps)
        except Exception as error:
            if len(tickets) == 1:
                self._fail(tickets[0], error)
                return
            logger.info("a batch of %d pushes failed, they are run one by one: %s", len(tickets), error)
            for ticket in tickets:
                self._run([ticket], min(steps, ticket.steps - ticket.done))

    def _call(self, tickets: list[Ticket], steps: int) -> None:
        engine, layout = self.engine, self.engine.layout
        lengths = [min(ticket.steps - ticket.done, steps) for ticket in tickets]
        states = self._gather(tickets)
        items = [ticket.slice(layout, length) for ticket, length in zip(tickets, lengths, strict=True)]
        started = time.monotonic()
        outputs, finals = run_stacked(engine, items, lengths, max(steps, 1), states)
        took = time.monotonic() - started
        # All that can fail comes before the first change of a state.
        for ticket, own, length in zip(tickets, outputs, lengths, strict=True):
            if ticket.done + length == ticket.steps:
                ticket.outputs = own if not ticket.parts else join_parts(layout, [*ticket.parts, own])
        with self.lock:
            self.counters.called(len(tickets), max(steps, 1), sum(lengths), took)
            over = self._commit(tickets, lengths, outputs, finals)
            self._moved.notify_all()
        settle(over)

    def _commit(
        self, tickets: Sequence[Ticket], lengths: Sequence[int], outputs: Sequence[list[Array]], finals: Sequence[Array]
    ) -> list[Ticket]:
        """Move what is finished on, and keep what is not for the next call; returns the tickets that are over."""
        over: list[Ticket] = []
        moved: list[int] = []
        now = time.monotonic()
        for i, (ticket, length) in enumerate(zip(tickets, lengths, strict=True)):
            ticket.done += length
            if ticket.outputs is not None:
                if ticket.steps:
                    moved.append(i)
                    ticket.lane.steps += ticket.steps
            elif ticket.abandoned:
                ticket.error = PoolError(_CANCELLED)
                self.counters.totals["cancelled"] += 1
            else:
                ticket.parts.append(outputs[i])
                ticket.carry = tuple([final[i].copy() for final in finals])
                continue
            over.append(ticket)
        if moved:
            rows = np.array([tickets[i].lane.row for i in moved], np.intp)
            self.resident.scatter(rows, finals if len(moved) == len(tickets) else [final[moved] for final in finals])
        self._finish(over, now)
        return over

    def _gather(self, tickets: Sequence[Ticket]) -> dict[str, Array]:
        with self.lock:
            for ticket in tickets:
                lane = ticket.lane
                if lane.row < 0:
                    lane.row = self.resident.allocate(lane.parked)
                    lane.parked = None
            states = self.resident.gather(np.array([ticket.lane.row for ticket in tickets], np.intp))
        for i, ticket in enumerate(tickets):
            if ticket.carry is not None:
                for array, own in zip(states.values(), ticket.carry, strict=True):
                    array[i] = own
        return states

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        with self.lock:
            self.counters.totals["failed"] += 1
            ticket.error = error
            self._finish([ticket], time.monotonic())
            self._moved.notify_all()
        settle([ticket])

    def _finish(self, tickets: Sequence[Ticket], now: float) -> None:
        """These tickets are over, and their lanes are ready for the next ones; with the lock held."""
        for ticket in tickets:
            ticket.stage = Stage.OVER
            lane = ticket.lane
            queue = lane.tickets
            queue.popleft()
            lane.last_used = now
            if queue:
                self._ready.append(lane)
            else:
                lane.queued = False
                if lane.closed:
                    self._forget(lane)
        self._pending -= len(tickets)
