"""A thread of a pool that takes what is queued, runs it in batches, and hands out the answers.

A cycle takes at most one push of each stream.  It runs them in one or more calls: all go ahead together, those with few
steps are answered and leave, the rest goes on, until ``slice_steps`` have been run; what is unfinished then joins the
next cycle, so a long chunk never holds up short ones for longer than that.

Where streams keep steps for the next run, a chunk is run after those, whole, in one call.

States are resident (stacked); a push that takes several calls carries its own state along, and only its last call
changes that of its stream.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, PoolError, StateError
from rnncore.runtime.origin import logger
from rnncore.runtime.pool.books import CANCELLED
from rnncore.runtime.pool.request import RUNNING, PushRequest, join_parts
from rnncore.runtime.pool.scheduler import Scheduler
from rnncore.runtime.pool.slices import plan_slice, plan_whole
from rnncore.runtime.session.run import Items, item_views, pack_items, run_arrays
from rnncore.runtime.streaming.chunk import blank_outputs
from rnncore.runtime.streaming.snapshot import MOST_STEPS, check_count
from rnncore.runtime.streaming.strides import join_row, keep, waiting_steps


class Worker:
    """Runs what ``scheduler`` has to run, in a thread of its own, until that is closed and empty."""

    def __init__(self, scheduler: Scheduler, slice_steps: int) -> None:
        self._scheduler = scheduler
        self._engine = scheduler.engine
        self._slice_steps = slice_steps
        layout = scheduler.engine.layout
        self._sliceable = not layout.timeless_outputs
        self._most_steps = MOST_STEPS if layout.signature.most_steps is None else layout.signature.most_steps
        self._paddable = scheduler.engine.layout.lengths is not None
        self._gates: list[PushRequest] = []  # over, and the threads that wait for them still wait
        self._handed_in = False  # others are, of which nobody has been told to tell
        self._notifier = scheduler.notifier
        self._thread = threading.Thread(target=self._run_cycles, name="rnncore-pool", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False if it takes longer."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run_cycles(self) -> None:
        self._notifier.join_pool()
        while (requests := self._scheduler.take(wait=not (self._gates or self._handed_in))) is not None:
            if not requests:  # nothing to run: nothing that is worth keeping anybody waiting
                self._open_gates()
                if self._handed_in:
                    self._handed_in = False
                    self._notifier.tell_now()
                continue
            try:
                self._run_cycle(requests)
            except Exception as error:  # whatever it is, the pool lives on and nobody waits for ever
                logger.exception("a cycle of the pool failed")
                for request in requests:
                    if request.stage is RUNNING:
                        self._fail(request, error)
        if self._scheduler.leave():
            self._notifier.close()
        self._notifier.leave_pool()

    def _run_cycle(self, requests: list[PushRequest]) -> None:
        left = self._slice_steps
        for request in requests:
            if request.queue.steps > self._most_steps - request.steps:
                self._refuse_to_count(request)
        active = [request for request in requests if request.stage is RUNNING]
        if self._engine.layout.waits:
            self._run_after_kept(active)
            return
        while active and (left > 0 or not self._sliceable):
            remaining = [request.steps - request.done for request in active]
            if self._sliceable:
                if max(remaining) > left:
                    remaining = [min(steps, left) for steps in remaining]
                chosen, steps = plan_slice(remaining, paddable=self._paddable)
                left -= max(steps, 1)
            else:
                chosen, steps = plan_whole(remaining, paddable=self._paddable)
            chosen = self._alike(active, chosen)
            self._run([active[i] for i in chosen], steps)
            active = [request for request in active if request.stage is RUNNING]
        if active:
            self._scheduler.put_back(active)

    def _alike(self, requests: Sequence[PushRequest], chosen: list[int]) -> list[int]:
        """Those of ``chosen`` whose free axes agree with the first: only they can share arrays."""
        if self._engine.layout.fixed:
            return chosen
        shapes = [self._free_shape(requests[i]) for i in chosen]
        return [i for i, shape in zip(chosen, shapes, strict=True) if shape == shapes[0]]

    def _free_shape(self, request: PushRequest) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(d for axis, d in enumerate(request.items[slot.name].shape) if axis != slot.item_time_axis)
            for slot in self._engine.layout.inputs
        )

    def _run(self, requests: list[PushRequest], steps: int) -> None:
        """Run ``steps`` of each request in one call; if it fails, each in a call of its own, to find out who is to blame."""
        try:
            self._call(requests, steps)
        except Exception as error:
            if len(requests) == 1:
                self._fail(requests[0], error)
                return
            logger.info("a batch of %d pushes failed, they are run one by one: %s", len(requests), error)
            for request in requests:
                self._run([request], min(steps, request.steps - request.done))

    def _call(self, requests: list[PushRequest], steps: int) -> None:
        layout = self._engine.layout
        padded = max(steps, 1)
        whole = all([request.done == 0 and request.steps == padded for request in requests])
        rows, states = self._gather(requests, fresh=whole)
        if whole:  # the common case: everybody's chunk fits in this one call, so there is nothing to cut and to join
            lengths = [padded] * len(requests)
            items = [request.items for request in requests]
        else:
            lengths = [min(request.steps - request.done, steps) for request in requests]
            items = [request.slice(layout, length) for request, length in zip(requests, lengths, strict=True)]
        parts, finals, took = self._run_items(items, lengths, padded, states)
        if not whole:
            for request, own, length in zip(requests, parts, lengths, strict=True):
                if request.done + length == request.steps:
                    request.outputs = join_parts(layout, [*request.parts, own]) if request.parts else own
        with self._scheduler.lock:
            self._scheduler.counters.called(len(requests), padded, sum(lengths), took)
            over = (
                self._commit_whole(requests, rows, parts, finals)
                if whole
                else self._commit(requests, lengths, parts, finals)
            )
            self._hand_in(over)

    def _run_items(
        self, items: Sequence[Items], lengths: Sequence[int], steps: int, states: Sequence[Array]
    ) -> tuple[list[tuple[Array, ...]], list[Array], float]:
        """One call of the graph, and the telling of what is over: outputs of each row, final states, seconds.

        All that can fail comes before the first change of a state.
        """
        layout = self._engine.layout
        arrays = pack_items(layout, items, steps)
        self._open_gates()  # only now, when nothing is left but to run; neither lets go of the interpreter
        if self._handed_in:
            self._handed_in = False
            self._notifier.tell_soon()
        started = time.monotonic()
        outputs, finals = run_arrays(self._engine, arrays, np.array(lengths, np.int64), steps, states)
        took = time.monotonic() - started
        columns = [item_views(s, output, lengths, steps) for s, output in zip(layout.outputs, outputs, strict=True)]
        return list(zip(*columns, strict=True)), finals, took

    def _run_after_kept(self, requests: list[PushRequest]) -> None:
        """Run chunks after the steps that their streams kept, those with equally many in one call; all are over then."""
        while requests:
            layout = self._engine.layout
            counts = waiting_steps(layout, self._gather(requests, fresh=True)[1])
            runs = [layout.run_of(count + request.steps) for count, request in zip(counts, requests, strict=True)]
            if (
                not layout.overlap
                and not any(counts)
                and all([r.steps == n for r, n in zip(requests, runs, strict=True)])
            ):
                chosen, steps = plan_whole(runs, paddable=self._paddable)  # nothing to join
                self._run([requests[i] for i in chosen], steps)
            elif 0 in runs:  # what only waits is in no call
                self._wait_on([request for request, run in zip(requests, runs, strict=True) if not run])
            else:
                chosen, steps = plan_whole(runs, paddable=self._paddable)
                self._run_kept([requests[i] for i in chosen], steps)
            requests = [request for request in requests if request.stage is RUNNING]

    def _run_kept(self, requests: list[PushRequest], steps: int) -> None:
        """As :meth:`_run`, padded to ``steps``, those that were kept included."""
        rows, states = self._gather(requests, fresh=True)
        layout = self._engine.layout
        runs = [join_row(layout, states, i, request.items, request.steps) for i, request in enumerate(requests)]
        lengths = [length for _, length, _ in runs]
        try:
            parts, finals, took = self._run_items([items for items, _, _ in runs], lengths, steps, states)
        except Exception as error:
            if len(requests) == 1:
                self._fail(requests[0], error)
                return
            logger.info("a batch of %d pushes failed, they are run one by one: %s", len(requests), error)
            for request, length in zip(requests, lengths, strict=True):
                self._run_kept([request], length)
            return
        for i, (_, _, rest) in enumerate(runs):
            keep(layout, rest, [final[i : i + 1] for final in finals])
        with self._scheduler.lock:
            self._scheduler.counters.called(len(requests), steps, sum(lengths), took)
            self._hand_in(self._commit_whole(requests, rows, parts, finals))

    def _wait_on(self, requests: list[PushRequest]) -> None:
        """These chunks wait in their streams, and answer nothing."""
        layout = self._engine.layout
        rows, states = self._gather(requests, fresh=True)
        for i, request in enumerate(requests):
            request.blank = True
            _, _, rest = join_row(layout, states, i, request.items, request.steps)
            keep(layout, rest, [state[i : i + 1] for state in states])
        with self._scheduler.lock:
            nothing = [tuple(blank_outputs(layout)) for _ in requests]
            self._hand_in(self._commit_whole(requests, rows, nothing, states))

    def _commit_whole(
        self,
        requests: list[PushRequest],
        rows: NDArray[np.intp],
        parts: Sequence[tuple[Array, ...]],
        finals: Sequence[Array],
    ) -> list[PushRequest]:
        """:meth:`_commit` for requests that are all over now, after the first call of each."""
        self._scheduler.resident.scatter(rows, finals)
        for request, own in zip(requests, parts, strict=True):
            request.outputs = own
            request.done = request.steps
            request.queue.steps += request.steps
        self._scheduler.finish(requests)
        return requests

    def _commit(
        self,
        requests: Sequence[PushRequest],
        lengths: Sequence[int],
        parts: Sequence[tuple[Array, ...]],
        finals: Sequence[Array],
    ) -> list[PushRequest]:
        """Move what is finished on, and keep what is not for the next call; returns the requests that are over."""
        over: list[PushRequest] = []
        moved: list[int] = []
        kept: list[tuple[int, list[Array], tuple[Array, ...]]] = []
        for i, request in enumerate(requests):
            if request.outputs is not None:
                if request.steps:
                    moved.append(i)
                over.append(request)
            elif request.abandoned:
                over.append(request)
            else:
                own = [part.copy() for part in parts[i]]
                kept.append((i, own, tuple([final[i].copy() for final in finals])))
        if moved:
            rows = np.array([requests[i].queue.row for i in moved], np.intp)
            whole = len(moved) == len(requests)
            self._scheduler.resident.scatter(rows, finals if whole else [final[moved] for final in finals])
        # The states have moved; what follows cannot fail.
        for request, length in zip(requests, lengths, strict=True):
            request.done += length
        for i in moved:
            requests[i].queue.steps += requests[i].steps
        for i, own, carry in kept:
            requests[i].parts = [*requests[i].parts, own]
            requests[i].carry = carry
        for request in over:
            if request.outputs is None:
                request.error = PoolError(CANCELLED)
                self._scheduler.counters.totals["cancelled"] += 1
        self._scheduler.finish(over)
        return over

    def _gather(self, requests: Sequence[PushRequest], *, fresh: bool) -> tuple[NDArray[np.intp], list[Array]]:
        """Rows of ``requests``, and copies of their states; ``fresh``: none of them has been run before."""
        with self._scheduler.lock:
            rows = [request.queue.row for request in requests]
            if min(rows) < 0:
                self._scheduler.make_resident([request.queue for request in requests])
                rows = [request.queue.row for request in requests]
            index = np.array(rows, np.intp)
            states = self._scheduler.resident.gather(index)
        for i, request in enumerate(() if fresh else requests):
            if request.carry is not None:
                for array, own in zip(states, request.carry, strict=True):
                    array[i] = own
        return index, states

    def _refuse_to_count(self, request: PushRequest) -> None:
        try:
            check_count(request.queue.steps, request.steps, self._engine.layout.signature.most_steps)
        except (StateError, InputError) as error:
            self._fail(request, error)

    def _fail(self, request: PushRequest, error: Exception) -> None:
        with self._scheduler.lock:
            self._scheduler.counters.totals["failed"] += 1
            request.error = error
            self._scheduler.finish([request])
            self._hand_in([request])

    def _hand_in(self, over: list[PushRequest]) -> None:
        """These are over; with the lock held.  They are told of when nothing else is to be done."""
        gates = self._notifier.hand_in(over)
        self._gates += gates
        if len(gates) < len(over):
            self._handed_in = True

    def _open_gates(self) -> None:
        """Let the threads go on whose pushes are over."""
        for request in self._gates:
            request.open_gate()
        self._gates.clear()


def join_all(workers: Sequence[Worker], timeout_s: float | None = None) -> bool:
    """Wait for the end of all; False if it takes longer together."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    left = [worker.join(None if end is None else max(end - time.monotonic(), 0)) for worker in workers]
    return all(left)
