"""Idle streams: their state leaves the batch arrays, to be kept for them or to be handed over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rnncore.runtime.origin import logger
from rnncore.runtime.pool.request import StreamQueue
from rnncore.runtime.pool.scheduler import Scheduler
from rnncore.runtime.streaming.snapshot import Snapshot, encode

OnEvict = Callable[[str, bytes], None]
"""Called with the key of a stream and its saved state."""

_LONGEST_NAP_S = 1.0


def longest_idle(scheduler: Scheduler) -> StreamQueue | None:
    """The resident queue without pushes that was used longest ago; with the lock held."""
    idle = [queue for queue in scheduler.queues.values() if queue.row >= 0 and not queue.requests]
    return min(idle, key=lambda queue: queue.last_used, default=None)


def evict(scheduler: Scheduler, queue: StreamQueue, on_evict: OnEvict | None) -> None:
    """Take the state of an idle queue out of the batch arrays; nothing happens if it is in use again.

    Without ``on_evict`` the queue is parked: it keeps its state and comes back by itself with its next push.  With it
    the state is handed over and the queue is at its end; if the callback fails, the queue is parked after all.
    """
    with scheduler.lock:
        if queue.requests or queue.closed or queue.evicted:
            return
        if queue.row >= 0:
            queue.parked = scheduler.resident.read(queue.row)
            scheduler.resident.release(queue.row)
            queue.row = -1
            scheduler.counters.totals["evicted"] += 1
        if on_evict is None or queue.parked is None:
            return
        queue.evicted = True
        snapshot = Snapshot(queue.steps, queue.parked)
    engine = scheduler.engine
    try:
        on_evict(queue.key, encode(engine.fingerprint, engine.layout, snapshot))
    except Exception:
        logger.exception("on_evict failed for stream %r, which keeps its state", queue.key)
        with scheduler.lock:
            queue.evicted = False
        return
    with scheduler.lock:
        queue.parked = None
        scheduler.queues.pop(queue.key, None)


def watch_idle(scheduler: Scheduler, max_idle_s: float, on_evict: OnEvict | None, over: threading.Event) -> None:
    """Evict what has been idle for longer than ``max_idle_s``, until ``over``; the body of a thread."""
    while not over.wait(min(max_idle_s / 4, _LONGEST_NAP_S)):
        oldest = time.monotonic() - max_idle_s
        with scheduler.lock:
            scheduler.sweep()
            idle = [queue for queue in scheduler.queues.values() if queue.row >= 0 and queue.last_used < oldest]
        for queue in idle:
            if queue.last_used < oldest:
                evict(scheduler, queue, on_evict)
