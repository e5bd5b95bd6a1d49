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
    the state is handed over and the queue is at its end; if the callback fails, in whatever way, the queue is parked
    after all.  What is no ``Exception`` (Ctrl-C, say) is raised then, unless a thread of the pool called.
    """
    leaving = False
    try:
        with scheduler.lock:
            scheduler.sweep()
            if queue.requests or queue.closed or queue.evicted:
                return
            scheduler.park(queue)
            if on_evict is None or queue.parked is None:
                return
            leaving = True
            queue.evicted = True  # from here on a push is refused, as it would not be in what is handed over
            snapshot = Snapshot(queue.steps, queue.parked)
        engine = scheduler.engine
        on_evict(queue.key, encode(engine.fingerprint, engine.layout, snapshot))
        leaving = False
        scheduler.departed.append(queue)
    except BaseException as error:
        logger.exception("on_evict failed for stream %r, which keeps its state", queue.key)
        if not isinstance(error, Exception) and not scheduler.notifier.in_own_thread:
            raise
    finally:
        if leaving:
            queue.last_used = time.monotonic()
            queue.evicted = False
    scheduler.settle()


def watch_idle(scheduler: Scheduler, max_idle_s: float, on_evict: OnEvict | None, over: threading.Event) -> None:
    """Evict what has been idle for longer than ``max_idle_s``, until ``over``; the body of a thread."""
    scheduler.notifier.join_pool()
    while not over.wait(min(max_idle_s / 4, _LONGEST_NAP_S)):
        oldest = time.monotonic() - max_idle_s
        with scheduler.lock:
            scheduler.sweep()
            # One that is parked and was to be handed over, which failed, is tried again.
            present = [queue for queue in scheduler.queues.values() if queue.row >= 0 or on_evict is not None]
            idle = [queue for queue in present if queue.last_used < oldest]
        for queue in idle:
            if queue.last_used < oldest:
                evict(scheduler, queue, on_evict)
    scheduler.notifier.leave_pool()
