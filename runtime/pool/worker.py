"""The thread of a pool that takes what is queued, runs it in batches, and hands out the answers.

A cycle takes at most one push of each stream.  It runs them in one or more calls: all go ahead together, those with few
steps are answered and leave, the rest goes on, until ``slice_steps`` have been run; what is unfinished then joins the
next cycle, so a long chunk never holds up short ones for longer than that.

States are resident (stacked); a push that takes several calls carries its own state along, and only its last call
changes that of its stream.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.batches.items import item_views, pack_items, run_arrays
from rnncore.runtime.errors import PoolError
from rnncore.runtime.files.layout import Array
from rnncore.runtime.files.origin import logger
from rnncore.runtime.pool.scheduler import CANCELLED, Scheduler
from rnncore.runtime.pool.slices import plan_slice, plan_whole
from rnncore.runtime.pool.teller import Teller
from rnncore.runtime.pool.ticket import RUNNING, Ticket, join_parts


class Worker:
    """Runs what ``scheduler`` has to run, in a thread of its own, until that is closed and empty."""

    def __init__(self, scheduler: Scheduler, slice_steps: int) -> None:
        self._scheduler = scheduler
        self._engine = scheduler.engine
        self._slice_steps = slice_steps
        layout = scheduler.engine.layout
        self._sliceable = not layout.timeless_outputs and layout.stride == 1
        self._paddable = scheduler.engine.layout.lengths is not None
        self._untold: list[Ticket] = []  # over, and whoever waits for them still waits
        self._teller = Teller()
        self._thread = threading.Thread(target=self._run_cycles, name="rnncore-pool", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False if it takes longer, or if a callback asks, which the end has to wait for."""
        if threading.current_thread() in (self._thread, self._teller.thread):
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run_cycles(self) -> None:
        while (tickets := self._scheduler.take(wait=not self._untold)) is not None:
            if not tickets:  # nothing to run: nothing that is worth keeping anybody waiting
                self._teller.tell_now(self._take_untold())
                continue
            try:
                self._run_cycle(tickets)
            except Exception as error:  # whatever it is, the pool lives on and nobody waits for ever
                logger.exception("a cycle of the pool failed")
                for ticket in tickets:
                    if ticket.stage is RUNNING:
                        self._fail(ticket, error)
        self._teller.close()

    def _run_cycle(self, tickets: list[Ticket]) -> None:
        left = self._slice_steps
        active = tickets
        while active and (left > 0 or not self._sliceable):
            remaining = [ticket.steps - ticket.done for ticket in active]
            if self._sliceable:
                if max(remaining) > left:
                    remaining = [min(steps, left) for steps in remaining]
                chosen, steps = plan_slice(remaining, paddable=self._paddable)
                left -= max(steps, 1)
            else:
                chosen, steps = plan_whole(remaining, paddable=self._paddable)
            chosen = self._alike(active, chosen)
            self._run([active[i] for i in chosen], steps)
            active = [ticket for ticket in active if ticket.stage is RUNNING]
        if active:
            self._scheduler.put_back(active)

    def _alike(self, tickets: Sequence[Ticket], chosen: list[int]) -> list[int]:
        """Those of ``chosen`` whose free axes agree with the first: only they can share arrays."""
        if self._engine.layout.fixed:
            return chosen
        shapes = [self._free_shape(tickets[i]) for i in chosen]
        return [i for i, shape in zip(chosen, shapes, strict=True) if shape == shapes[0]]

    def _free_shape(self, ticket: Ticket) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(d for axis, d in enumerate(ticket.items[slot.name].shape) if axis != slot.item_time_axis)
            for slot in self._engine.layout.inputs
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
        layout = self._engine.layout
        padded = max(steps, 1)
        whole = all([ticket.done == 0 and ticket.steps == padded for ticket in tickets])
        rows, states = self._gather(tickets, fresh=whole)
        if whole:  # the common case: everybody's chunk fits in this one call, so there is nothing to cut and to join
            lengths = [padded] * len(tickets)
            items = [ticket.items for ticket in tickets]
        else:
            lengths = [min(ticket.steps - ticket.done, steps) for ticket in tickets]
            items = [ticket.slice(layout, length) for ticket, length in zip(tickets, lengths, strict=True)]
        arrays = pack_items(layout, items, padded)
        if self._untold:  # only now, when nothing is left but to run
            self._teller.tell_soon(self._take_untold())
        started = time.monotonic()
        outputs, finals = run_arrays(self._engine, arrays, np.array(lengths, np.int64), padded, states)
        took = time.monotonic() - started
        # All that can fail comes before the first change of a state.
        columns = [item_views(s, output, lengths, padded) for s, output in zip(layout.outputs, outputs, strict=True)]
        parts = list(zip(*columns, strict=True))
        if not whole:
            for ticket, own, length in zip(tickets, parts, lengths, strict=True):
                if ticket.done + length == ticket.steps:
                    ticket.outputs = join_parts(layout, [*ticket.parts, own]) if ticket.parts else own
        with self._scheduler.lock:
            self._scheduler.counters.called(len(tickets), padded, sum(lengths), took)
            over = (
                self._commit_whole(tickets, padded, rows, parts, finals)
                if whole
                else self._commit(tickets, lengths, parts, finals)
            )
        self._untold += over

    def _commit_whole(
        self,
        tickets: list[Ticket],
        steps: int,
        rows: NDArray[np.intp],
        parts: Sequence[tuple[Array, ...]],
        finals: Sequence[Array],
    ) -> list[Ticket]:
        """:meth:`_commit` for tickets that are all over now, each after the same ``steps``, one at least."""
        for ticket, own in zip(tickets, parts, strict=True):
            ticket.outputs = own
            ticket.done = steps
            ticket.lane.steps += steps
        self._scheduler.resident.scatter(rows, finals)
        self._scheduler.finish(tickets)
        return tickets

    def _commit(
        self,
        tickets: Sequence[Ticket],
        lengths: Sequence[int],
        parts: Sequence[tuple[Array, ...]],
        finals: Sequence[Array],
    ) -> list[Ticket]:
        """Move what is finished on, and keep what is not for the next call; returns the tickets that are over."""
        over: list[Ticket] = []
        moved: list[int] = []
        for i, ticket in enumerate(tickets):
            ticket.done += lengths[i]
            if ticket.outputs is not None:
                if ticket.steps:
                    moved.append(i)
                    ticket.lane.steps += ticket.steps
            elif ticket.abandoned:
                ticket.error = PoolError(CANCELLED)
                self._scheduler.counters.totals["cancelled"] += 1
            else:
                ticket.parts = [*ticket.parts, [part.copy() for part in parts[i]]]
                ticket.carry = tuple([final[i].copy() for final in finals])
                continue
            over.append(ticket)
        if moved:
            rows = np.array([tickets[i].lane.row for i in moved], np.intp)
            whole = len(moved) == len(tickets)
            self._scheduler.resident.scatter(rows, finals if whole else [final[moved] for final in finals])
        self._scheduler.finish(over)
        return over

    def _gather(self, tickets: Sequence[Ticket], *, fresh: bool) -> tuple[NDArray[np.intp], list[Array]]:
        """Rows of ``tickets``, and copies of their states; ``fresh``: none of them has been run before."""
        resident = self._scheduler.resident
        with self._scheduler.lock:
            rows = [ticket.lane.row for ticket in tickets]
            if min(rows) < 0:
                for i, ticket in enumerate(tickets):
                    lane = ticket.lane
                    if lane.row < 0:
                        rows[i] = lane.row = resident.allocate(lane.parked)
                        lane.parked = None
            index = np.array(rows, np.intp)
            states = resident.gather(index)
        for i, ticket in enumerate(() if fresh else tickets):
            if ticket.carry is not None:
                for array, own in zip(states, ticket.carry, strict=True):
                    array[i] = own
        return index, states

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        with self._scheduler.lock:
            self._scheduler.counters.totals["failed"] += 1
            ticket.error = error
            self._scheduler.finish([ticket])
        self._untold.append(ticket)

    def _take_untold(self) -> list[Ticket]:
        untold, self._untold = self._untold, []
        return untold
