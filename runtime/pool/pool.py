"""A pool: many streams that push whenever they like, run in batches by a thread or several."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rnncore.runtime.errors import InputError, Overloaded, PoolClosedError, SnapshotError, raise_all
from rnncore.runtime.pool.eviction import OnEvict, evict, longest_idle, watch_idle
from rnncore.runtime.pool.request import StreamQueue, is_duration
from rnncore.runtime.pool.scheduler import Batching, Scheduler
from rnncore.runtime.pool.stream import PoolStream
from rnncore.runtime.pool.worker import Worker, join_all
from rnncore.runtime.session.run import run_items
from rnncore.runtime.session.session import Engine
from rnncore.runtime.streaming.closing import Closing
from rnncore.runtime.streaming.snapshot import Snapshot, decode, read_file
from rnncore.runtime.streaming.stream import check_streamable

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from rnncore.runtime.pool.prometheus import PoolCollector

OnOverload = Literal["error", "wait"]


class Pool(Closing):
    """Streams that are batched with each other; made by :meth:`Model.pool`, closed with ``with`` or :meth:`close`.

    All its methods may be called from any thread.  A forked child cannot use it and is told so.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch: int,
        max_wait_ms: float,
        max_pending: int,
        on_overload: OnOverload,
        slice_steps: int,
        max_streams: int | None,
        max_idle_s: float | None,
        on_evict: OnEvict | None,
        workers: int,
    ) -> None:
        check_streamable(engine.layout)
        counts = {"max_batch": max_batch, "max_pending": max_pending, "slice_steps": slice_steps, "workers": workers}
        if max_streams is not None:
            counts["max_streams"] = max_streams
        problems = [
            f"{name} is {value!r}, expected an integer of at least 1"
            for name, value in counts.items()
            if isinstance(value, bool) or not isinstance(value, int) or value < 1
        ]
        if not (is_duration(max_wait_ms) and max_wait_ms < float("inf")):
            problems.append(f"max_wait_ms is {max_wait_ms!r}, expected milliseconds of at least 0")
        if max_idle_s is not None and not (is_duration(max_idle_s) and 0 < max_idle_s < float("inf")):
            problems.append(f"max_idle_s is {max_idle_s!r}, expected seconds above 0, or None")
        if on_overload not in ("error", "wait"):
            problems.append(f"on_overload is {on_overload!r}, expected 'error' or 'wait'")
        if on_evict is not None and not callable(on_evict):
            problems.append(f"on_evict is a {type(on_evict).__name__}, expected a function or None")
        raise_all(problems)
        self._max_batch = max_batch
        self._max_streams = max_streams
        self._on_evict = on_evict
        self._keys = itertools.count(1)
        workers = workers if max_streams is None else min(workers, max_streams)
        self._scheduler = Scheduler(
            engine,
            Batching(max_batch, float(max_wait_ms), max_streams, workers),
            max_pending=max_pending,
            waits=on_overload == "wait",
        )
        self._workers = [Worker(self._scheduler, slice_steps) for _ in range(workers)]
        self._housekeeper: threading.Thread | None = None
        self._over = threading.Event()
        if max_idle_s is not None:
            arguments = (self._scheduler, float(max_idle_s), on_evict, self._over)
            self._housekeeper = threading.Thread(target=watch_idle, args=arguments, name="rnncore-idle", daemon=True)
            self._housekeeper.start()
        # When the pool is forgotten, and at the latest when the interpreter ends.
        self._stop = weakref.finalize(self, _stop, self._scheduler, self._workers, self._over)

    def open(self, key: str | None = None) -> PoolStream:
        """Open a stream at the initial state.

        key: its name in this pool, passed to ``on_evict``; made up if None.

        Raises Overloaded when ``max_streams`` are open and none of them is idle, InputError for a key in use.
        """
        return self.open_at(key, None)

    def restore(self, blob: bytes, key: str | None = None) -> PoolStream:
        """Open a stream where ``save`` of a stream, or ``on_evict``, left one; SnapshotError as ``Model.restore``."""
        engine = self._scheduler.engine
        return self.open_at(key, decode(blob, engine.fingerprint, engine.layout))

    def restore_file(self, path: str | os.PathLike[str], key: str | None = None) -> PoolStream:
        """Open a stream where ``save_file`` left one; SnapshotError names the path."""
        try:
            return self.restore(read_file(path, self._scheduler.engine.layout), key)
        except SnapshotError as error:
            raise SnapshotError(f"{path}: {error}") from error.__cause__

    def warm_up(self, batch_sizes: Sequence[int] | None = None, steps: Sequence[int] = (1,)) -> None:
        """Run blank calls, so that no client waits for first allocations; by default 1, 2, 4 and so on to max_batch."""
        engine = self._scheduler.engine
        layout = engine.layout
        self._scheduler.check_process()
        sizes = _powers_of_two(self._max_batch) if batch_sizes is None else list(batch_sizes)
        wrong = [n for n in (*sizes, *steps) if isinstance(n, bool) or not isinstance(n, int) or n < 1]
        if wrong:
            raise InputError(f"warm_up got the size {wrong[0]!r}, expected integers of at least 1")
        for count in steps:
            item = {slot.name: np.zeros(slot.item_full_shape(count, 1), slot.dtype) for slot in layout.inputs}
            for size in sizes:
                run_items(engine, [item] * size, [count] * size, count, list(engine.initial_states(size).values()))

    def stats(self) -> dict[str, Any]:
        """Counters as plain numbers.

        ``streams`` open, of which ``resident`` have their state in the batch arrays; ``pending`` pushes, and those
        ``waiting`` for a place among them; ``pushes``, ``steps``, ``calls``, ``padded_steps``, ``failed``,
        ``overloaded``, ``expired``, ``cancelled``, ``evicted`` since the start; ``batch_sizes`` (calls by number of
        rows); ``queue_wait_ms`` and ``call_ms`` as p50, p90, p99 of the last 4096, ``queue_wait_total_s`` and
        ``call_total_s``.
        """
        scheduler = self._scheduler
        scheduler.check_process()
        with scheduler.lock:
            scheduler.sweep()
            now = {
                "streams": len(scheduler.queues),
                "resident": len(scheduler.resident),
                "pending": scheduler.pending,
                "waiting": scheduler.waiting,
            }
            return now | scheduler.counters.read()

    def collector(self, name: str = "default") -> PoolCollector:
        """The counters for Prometheus: ``prometheus_client.REGISTRY.register(pool.collector())``.

        name: value of the label ``pool``.  Raises MissingExtraError when ``prometheus_client`` is not installed.
        """
        from rnncore.runtime.pool.prometheus import PoolCollector

        return PoolCollector(weakref.ref(self), name)

    def instrument(self, name: str = "default", *, meter: Meter | None = None) -> None:
        """Have OpenTelemetry read the counters, ``rnncore.pool.*``, whenever it collects.

        name: value of the attribute ``pool``.
        meter: of ``opentelemetry.metrics``; by default ``get_meter("rnncore")`` of the provider that the program sets, before
            or afterwards.

        Raises MissingExtraError when ``opentelemetry`` is not installed.
        """
        from rnncore.runtime.pool.telemetry import observe

        observe(weakref.ref(self), name, meter)

    def close(self, *, drain: bool = True, evict_all: bool = False, timeout_s: float | None = None) -> bool:
        """Take no more pushes and end the threads.  Streams can still be saved afterwards, but not pushed.

        drain: answer what is queued; otherwise it gets PoolClosedError, and only what is being run is finished.
        evict_all: hand the state of every open stream to ``on_evict``.
        timeout_s: how long to wait for that.

        Returns False if there was work left after ``timeout_s``, or at once in a callback of the pool, for which its end
        has to wait; it goes on in the background.  Raises InputError, and goes on, if ``timeout_s`` is no such number.
        """
        if timeout_s is not None and not is_duration(timeout_s):
            raise InputError(f"timeout_s is {timeout_s!r}, expected seconds of at least 0, or None")
        if timeout_s is not None:  # a number of NumPy, or more than the system can wait for
            timeout_s = float(timeout_s) if timeout_s < threading.TIMEOUT_MAX / 2 else None
        scheduler = self._scheduler
        if scheduler.forked:
            return True
        self._over.set()
        scheduler.close(drain)
        if scheduler.notifier.in_own_thread:  # a callback asks, which the end has to wait for
            return False
        end = None if timeout_s is None else time.monotonic() + timeout_s
        done = join_all(self._workers, timeout_s)
        if self._housekeeper is not None:  # it may be handing a state over
            self._housekeeper.join(None if end is None else max(end - time.monotonic(), 0))
            done = done and not self._housekeeper.is_alive()
        if done:
            self._stop.detach()
        if evict_all and done and self._on_evict is not None:
            with scheduler.lock:
                queues = list(scheduler.queues.values())
            failed: BaseException | None = None
            for queue in queues:
                try:
                    evict(scheduler, queue, self._on_evict)
                except BaseException as error:  # Ctrl-C, say: the states of the others are handed over all the same
                    failed = failed or error
            if failed is not None:
                raise failed
        return done

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._scheduler.closing

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self._scheduler.pending} pending"
        return f"<Pool of {len(self._scheduler.queues)} streams, {state}>"

    def open_at(self, key: str | None, start: Snapshot | None) -> PoolStream:
        """Open a stream that goes on from ``start``, a checked snapshot of this model, None for the beginning."""
        scheduler = self._scheduler
        scheduler.check_process()
        if key is not None and not isinstance(key, str):
            raise InputError(f"key is a {type(key).__name__}, expected a str")
        while True:
            with scheduler.lock:
                scheduler.sweep()
                if scheduler.closing:
                    raise PoolClosedError("the pool is closed: open a new one with model.pool()")
                idle = None
                if self._max_streams is not None and len(scheduler.resident) >= self._max_streams:
                    idle = longest_idle(scheduler)
                    if idle is None:
                        scheduler.counters.totals["overloaded"] += 1
                        raise Overloaded(
                            f"{len(scheduler.resident)} streams are open and none is idle, the pool takes "
                            f"max_streams={self._max_streams}: close some, or try again later"
                        )
                else:
                    queue = StreamQueue(self._free_key(key), -1, 0 if start is None else start.steps)
                    stream = PoolStream(self, queue)  # from now on somebody gives back what is taken
                    scheduler.register(queue, None if start is None else start.states)
                    return stream
            evict(scheduler, idle, self._on_evict)

    def _free_key(self, key: str | None) -> str:
        queues = self._scheduler.queues
        if key is None:
            return next(name for name in map(str, self._keys) if name not in queues)
        if key in queues:
            raise InputError(f"a stream with the key {key!r} is open: close it, or use another key")
        return key


def _powers_of_two(top: int) -> list[int]:
    return sorted({1 << i for i in range(top.bit_length())} | {top})


def _stop(scheduler: Scheduler, workers: list[Worker], over: threading.Event) -> None:
    if not scheduler.forked:
        over.set()
        scheduler.close(drain=False)
        if not scheduler.notifier.in_own_thread:
            join_all(workers, 5.0)
