"""Idle streams: their state leaves the batch arrays, to be kept for them or to be handed over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rnncore.runtime.files.origin import logger
from rnncore.runtime.pool.scheduler import Scheduler
from rnncore.runtime.pool.ticket import Lane
from rnncore.runtime.streams.snapshot import Snapshot, encode

OnEvict = Callable[[str, bytes], None]
"""Called with the key of a stream and its saved state."""

_LONGEST_NAP_S = 1.0


def longest_idle(scheduler: Scheduler) -> Lane | None:
    """The resident lane without pushes that was used longest ago; with the lock held."""
    idle = [lane for lane in scheduler.lanes.values() if lane.row >= 0 and not lane.tickets]
    return min(idle, key=lambda lane: lane.last_used, default=None)


def evict(scheduler: Scheduler, lane: Lane, on_evict: OnEvict | None) -> None:
    """Take the state of an idle lane out of the batch arrays; nothing happens if it is in use again.

    Without ``on_evict`` the lane is parked: it keeps its state and comes back by itself with its next push.  With it
    the state is handed over and the lane is at its end; if the callback fails, the lane is parked after all.
    """
    with scheduler.lock:
        if lane.tickets or lane.closed or lane.evicted:
            return
        if lane.row >= 0:
            lane.parked = scheduler.resident.read(lane.row)
            scheduler.resident.release(lane.row)
            lane.row = -1
            scheduler.counters.totals["evicted"] += 1
        if on_evict is None or lane.parked is None:
            return
        lane.evicted = True
        snapshot = Snapshot(lane.steps, lane.parked)
    engine = scheduler.engine
    try:
        on_evict(lane.key, encode(engine.fingerprint, engine.layout, snapshot))
    except Exception:
        logger.exception("on_evict failed for stream %r, which keeps its state", lane.key)
        with scheduler.lock:
            lane.evicted = False
        return
    with scheduler.lock:
        lane.parked = None
        scheduler.lanes.pop(lane.key, None)


def watch_idle(scheduler: Scheduler, max_idle_s: float, on_evict: OnEvict | None, over: threading.Event) -> None:
    """Evict what has been idle for longer than ``max_idle_s``, until ``over``; the body of a thread."""
    while not over.wait(min(max_idle_s / 4, _LONGEST_NAP_S)):
        oldest = time.monotonic() - max_idle_s
        with scheduler.lock:
            scheduler.sweep()
            idle = [lane for lane in scheduler.lanes.values() if lane.row >= 0 and lane.last_used < oldest]
        for lane in idle:
            if lane.last_used < oldest:
                evict(scheduler, lane, on_evict)
