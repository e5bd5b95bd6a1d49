"""The queues of a pool, without a thread that runs anything: what is taken, refused, dropped, parked and derived anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime.pool.request import OVER, QUEUED, RUNNING, WAITING, PushRequest, StreamQueue
from rnncore.runtime.pool.scheduler import Batching, Scheduler
from rnncore.runtime.pool.stream import PoolStream
from rnncore.runtime.streaming.snapshot import Snapshot
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec

SPEC = Spec(lengths=True, learned=True)
ENGINE = model(SPEC).engine
CHUNK = sequence(SPEC, np.random.default_rng(4), 3)

Make = Callable[..., Scheduler]


@pytest.fixture
def make() -> Iterator[Make]:
    """Schedulers of which no worker takes anything but the test."""
    made = []

    def scheduler(
        max_batch: int = 64,
        max_wait_ms: float = 0.0,
        max_streams: int | None = None,
        workers: int = 1,
        max_pending: int = 100,
        waits: bool = False,
    ) -> Scheduler:
        batching = Batching(max_batch, max_wait_ms, max_streams, workers)
        made.append(Scheduler(ENGINE, batching, max_pending=max_pending, waits=waits))
        return made[-1]

    yield scheduler
    for one in made:
        one.notifier.close()


def opened(scheduler: Scheduler, count: int) -> list[StreamQueue]:
    queues = [StreamQueue(f"stream {i}", -1, 0) for i in range(count)]
    for queue in queues:
        scheduler.register(queue, None)
    return queues


def pushed(scheduler: Scheduler, queue: StreamQueue, timeout_s: float | None = None) -> PushRequest:
    request = PushRequest(queue, {"x": CHUNK}, len(CHUNK), timeout_s)
    scheduler.submit(request)
    return request


def taken(scheduler: Scheduler) -> list[PushRequest]:
    requests = scheduler.take(wait=False)
    assert requests is not None
    return requests


def finished(scheduler: Scheduler, requests: list[PushRequest]) -> None:
    with scheduler.lock:
        scheduler.finish(requests)


# ------------------------------------------------------------------------------------------------ what is taken, and when


def test_one_push_of_each_stream_is_taken_in_the_order_of_coming(make: Make) -> None:
    scheduler = make()
    a, b, c = opened(scheduler, 3)
    first, later, other, last = (pushed(scheduler, queue) for queue in (b, b, a, c))
    assert scheduler.pending == scheduler.counters.totals["pushes"] == 4
    assert taken(scheduler) == [first, other, last]
    assert [r.stage for r in (first, later, other, last)] == [RUNNING, QUEUED, RUNNING, RUNNING]
    assert b.runs and b.queued and taken(scheduler) == []
    finished(scheduler, [other, last])
    assert scheduler.pending == 2 and taken(scheduler) == []
    before = b.last_used
    finished(scheduler, [first])
    assert first.stage is OVER and not b.runs and b.last_used > before and list(b.requests) == [later]
    assert taken(scheduler) == [later]
    finished(scheduler, [later])
    assert scheduler.pending == 0 and not b.requests and not b.queued


@pytest.mark.parametrize(
    ("streams", "options", "sizes"),
    [
        (5, {"max_batch": 2}, [2, 2, 1]),
        (31, {}, [31]),
        (32, {}, [16, 16]),  # halves, so that answers of one are handed out while the other runs
        (33, {}, [17, 16]),
        (10, {"workers": 2}, [5, 5]),
        (40, {"workers": 3}, [14, 14, 12]),
        (1, {"workers": 4}, [1]),
        (8, {"max_streams": 8, "workers": 3}, [2, 2, 2, 2]),
        (9, {"max_streams": 9, "max_batch": 4}, [4, 4, 1]),
    ],
)
def test_sizes_of_batches(make: Make, streams: int, options: dict[str, Any], sizes: list[int]) -> None:
    scheduler = make(**options)
    for queue in opened(scheduler, streams):
        pushed(scheduler, queue)
    assert [len(taken(scheduler)) for _ in sizes] == sizes
    assert taken(scheduler) == []


def test_a_batch_waits_for_streams_that_do_not_run_elsewhere(make: Make) -> None:
    scheduler = make(max_wait_ms=60_000.0, workers=2)
    a, b, c = opened(scheduler, 3)
    first = pushed(scheduler, a)
    assert taken(scheduler) == [], "two of three are a half"
    second = pushed(scheduler, b)
    assert taken(scheduler) == [first, second]
    third = pushed(scheduler, c)
    assert taken(scheduler) == [third], "the other two are being run"
    finished(scheduler, [first, second, third])
    early = pushed(scheduler, a)
    early.queued_at -= 59
    assert taken(scheduler) == []
    early.queued_at -= 2
    assert taken(scheduler) == [early], "it has waited for max_wait_ms"
    assert scheduler.counters.read()["queue_wait_total_s"] == pytest.approx(61, abs=1)


def test_what_has_run_for_a_while_goes_to_the_end_and_has_not_waited_again(make: Make) -> None:
    scheduler = make()
    a, b = opened(scheduler, 2)
    long = pushed(scheduler, a)
    assert taken(scheduler) == [long]
    short = pushed(scheduler, b)
    long.done = 1
    scheduler.put_back([long])
    assert long.stage is QUEUED and scheduler.pending == 2
    waited = len(scheduler.counters._waits_s)
    assert taken(scheduler) == [short, long]
    assert len(scheduler.counters._waits_s) == waited + 1


def test_what_is_late_or_left_alone_is_dropped_before_it_runs(make: Make) -> None:
    scheduler = make()
    a, b = opened(scheduler, 2)
    late, abandoned = pushed(scheduler, a, timeout_s=30), pushed(scheduler, b)
    begun, next_of_a, next_of_b = pushed(scheduler, a, timeout_s=30), pushed(scheduler, a), pushed(scheduler, b)
    late.deadline = begun.deadline = time.monotonic() - 1
    begun.done = 1
    abandoned.abandoned = True
    assert taken(scheduler) == [begun, next_of_b], "one that has begun is finished"
    assert (late.stage, abandoned.stage) == (OVER, OVER)
    with pytest.raises(runtime.DeadlineExceeded) as caught:
        late.result()
    assert str(caught.value) == (
        "the push waited longer than its timeout and was not applied: the pool is busier than that, or is closing"
    )
    with pytest.raises(runtime.PoolError, match=r"^the push was cancelled before it was run$"):
        abandoned.result()
    totals = scheduler.counters.totals
    assert (totals["expired"], totals["cancelled"], scheduler.pending) == (1, 1, 3)
    assert list(a.requests) == [begun, next_of_a] and list(b.requests) == [next_of_b]


def test_a_stream_whose_only_push_is_late_is_ready_for_the_next_one(make: Make) -> None:
    scheduler = make()
    (a,) = opened(scheduler, 1)
    late = pushed(scheduler, a, timeout_s=30)
    late.deadline = 0.0
    assert taken(scheduler) == [] and not a.queued and scheduler.pending == 0
    assert taken(scheduler) == [] and [pushed(scheduler, a)] == taken(scheduler)


def test_a_closed_pool_hands_out_what_is_left_and_then_none(make: Make) -> None:
    scheduler = make(max_wait_ms=60_000.0, workers=2)
    a, _ = opened(scheduler, 2)
    last = pushed(scheduler, a)
    scheduler.close(drain=True)
    assert scheduler.take() == [last], "nobody else can come"
    assert scheduler.take(wait=False) == [] and scheduler.take() is None
    assert [scheduler.leave(), scheduler.leave()] == [False, True]


# --------------------------------------------------------------------------------------------------- what has no place


def test_beyond_max_pending_a_push_is_refused_and_counted(make: Make) -> None:
    scheduler = make(max_pending=2)
    a, b = opened(scheduler, 2)
    pushed(scheduler, a), pushed(scheduler, b)
    with pytest.raises(runtime.Overloaded) as caught:
        pushed(scheduler, a)
    assert str(caught.value) == (
        "2 pushes are pending, the pool takes max_pending=2: try again later, or open the pool with on_overload='wait'"
    )
    assert scheduler.counters.totals["overloaded"] == 1 and scheduler.pending == 2 and len(a.requests) == 1


def test_or_waits_without_its_chunk_until_it_has_a_place(make: Make) -> None:
    scheduler = make(max_pending=1, waits=True)
    a, b, c = opened(scheduler, 3)
    first = pushed(scheduler, a)
    second, third, fourth = (pushed(scheduler, queue) for queue in (b, c, b))
    assert [r.stage for r in (second, third, fourth)] == [WAITING] * 3 and second.items == {}
    assert (scheduler.pending, scheduler.waiting, scheduler.counters.totals["pushes"]) == (1, 3, 1)
    assert taken(scheduler) == [first]
    finished(scheduler, [first])
    assert (second.placed, third.placed, second.stage) == (True, False, WAITING)
    assert (scheduler.pending, scheduler.counters.totals["pushes"]) == (1, 2)
    assert taken(scheduler) == [], "it has a place and no chunk yet"
    late = pushed(scheduler, a)
    assert late.stage is WAITING, "nobody passes those who wait, though there is no other push"
    scheduler.fill(second, {"x": CHUNK})
    assert second.stage is QUEUED and second.items["x"] is CHUNK and taken(scheduler) == [second]
    scheduler.expire(third)
    assert scheduler.waiting == 2 and scheduler.pending == 1, "it had no place to give back"
    finished(scheduler, [second])
    assert (fourth.placed, late.placed) == (True, False)
    scheduler.cancel(fourth)
    assert (late.placed, scheduler.pending) == (True, 1)
    with pytest.raises(runtime.PoolError, match="cancelled"):
        scheduler.fill(fourth, {})
    scheduler.fill(late, {"x": CHUNK})
    assert taken(scheduler) == [late] and scheduler.waiting == 0


def test_a_closing_pool_drops_what_waits_and_on_demand_what_is_queued(make: Make) -> None:
    for drain in (True, False):
        scheduler = make(max_pending=2, waits=True)
        a, b, c = opened(scheduler, 3)
        running, queued, waiting = (pushed(scheduler, queue) for queue in (a, b, c))
        scheduler._max_batch = 1
        assert taken(scheduler) == [running]
        scheduler.close(drain)
        assert [r.stage for r in (running, queued, waiting)] == [RUNNING, QUEUED if drain else OVER, OVER]
        with pytest.raises(runtime.PoolClosedError) as caught:
            waiting.result()
        assert str(caught.value) == "the pool is closed: open a new one with model.pool()"
        assert scheduler.counters.totals["cancelled"] == (1 if drain else 2)
        assert scheduler.pending == (2 if drain else 1)
        with pytest.raises(runtime.PoolClosedError, match=r"^the pool is closed: open a new one with model.pool\(\)$"):
            pushed(scheduler, a)


def test_expired_is_what_has_not_begun(make: Make) -> None:
    scheduler = make()
    a, b, c = opened(scheduler, 3)
    runs, begun, queued = (pushed(scheduler, queue) for queue in (a, b, c))
    runs.stage, begun.done = RUNNING, 1
    for request in (runs, begun, queued, queued):
        scheduler.expire(request)
    assert [r.error is None for r in (runs, begun, queued)] == [True, True, False]
    assert isinstance(queued.error, runtime.DeadlineExceeded)
    assert (scheduler.counters.totals["expired"], scheduler.pending) == (1, 2)


# ----------------------------------------------------------------------------------------- streams, and where they are


def test_what_can_no_longer_be_used_says_why(make: Make) -> None:
    scheduler = make()
    a, b, c = opened(scheduler, 3)
    scheduler.check_usable(a)
    a.evicted = True
    scheduler.close_stream(b)
    with pytest.raises(runtime.StreamEvictedError) as evicted:
        pushed(scheduler, a)
    assert str(evicted.value) == (
        "the stream was idle and its state was handed to on_evict as 'stream 0': go on from those bytes with "
        "pool.restore(blob)"
    )
    with pytest.raises(runtime.StateError, match=r"^the stream is closed: open a new one with pool.open\(\)$"):
        pushed(scheduler, b)
    assert "stream 1" not in scheduler.queues and len(scheduler.resident) == 2 and b.row == -1
    scheduler.check_process()
    scheduler.after_process_fork()
    for use in (lambda: pushed(scheduler, c), lambda: scheduler.when_quiet(c, "busy", lambda: None)):
        with pytest.raises(runtime.PoolClosedError) as forked:
            use()
        assert str(forked.value) == (
            "this pool belongs to the process that this one was forked from: open a new one with model.pool()"
        )


def test_closing_a_stream_leaves_what_runs_and_drops_the_rest(make: Make) -> None:
    scheduler = make()
    (a,) = opened(scheduler, 1)
    runs, queued = pushed(scheduler, a), pushed(scheduler, a)
    assert taken(scheduler) == [runs]
    scheduler.close_stream(a)
    with pytest.raises(runtime.StateError, match=r"^the stream is closed: open a new one with pool.open\(\)$"):
        queued.result()
    assert scheduler.queues == {a.key: a} and a.row >= 0 and list(a.requests) == [runs] and scheduler.pending == 1
    finished(scheduler, [runs])
    assert scheduler.queues == {} and len(scheduler.resident) == 0 and scheduler.pending == 0
    assert scheduler.counters.totals["cancelled"] == 1


def test_a_pending_stream_is_busy_unless_nobody_wants_its_answer(make: Make) -> None:
    scheduler = make()
    (a,) = opened(scheduler, 1)
    assert scheduler.when_quiet(a, "busy", lambda: 5) == 5
    runs, other = pushed(scheduler, a), pushed(scheduler, a)
    assert taken(scheduler) == [runs]
    runs.abandoned = True
    with pytest.raises(runtime.StreamBusyError, match=r"^it is busy$"):
        scheduler.when_quiet(a, "it is busy", lambda: 5)
    scheduler.cancel(other)
    threading.Timer(0.02, finished, (scheduler, [runs])).start()
    assert scheduler.when_quiet(a, "busy", lambda: scheduler.pending) == 0


def states(value: float) -> tuple[np.ndarray, ...]:
    return tuple(np.full(state.size, value, state.dtype) for state in ENGINE.layout.states)


def test_those_used_longest_ago_make_room_but_not_those_that_run(make: Make) -> None:
    scheduler = make(max_streams=3)
    queues = opened(scheduler, 3)
    for value, queue in enumerate(queues):
        scheduler.replace(queue, Snapshot(10 + value, states(value)))
        queue.last_used = 100.0 - value
    a, b, c = queues
    assert len(scheduler.resident) == 3 and (a.steps, b.steps, c.steps) == (10, 11, 12)
    scheduler.park(c)
    scheduler.park(c)
    assert c.row == -1 and scheduler.counters.totals["evicted"] == 1 and len(scheduler.resident) == 2
    d = StreamQueue("d", -1, 0)
    scheduler.register(d, states(7))
    d.last_used = 1.0
    runs = pushed(scheduler, d)
    assert taken(scheduler) == [runs]
    scheduler.make_resident([c])
    assert [q.row >= 0 for q in (a, b, c, d)] == [True, False, True, True], "d is older, but runs; b comes next"
    assert c.parked is None and b.parked is not None and len(scheduler.resident) == 3
    scheduler.replace(b, Snapshot(50, states(9)))
    assert b.row == -1 and b.steps == 50, "to change what is parked does not wake it"
    for queue, value in ((a, 0), (c, 2), (d, 7)):
        assert all((array == value).all() for array in scheduler.resident.read(queue.row))
    assert all((array == 9).all() for array in b.parked)
    b.parked = None
    with pytest.raises(RuntimeError, match="'stream 1' has no state: this is an error of rnncore"):
        scheduler.make_resident([b])


def test_books_that_were_torn_are_derived_anew(make: Make) -> None:
    """As an exception of a signal handler leaves them, whatever was half done."""
    scheduler = make(max_pending=3, waits=True)
    a, b, c, d = opened(scheduler, 4)
    runs, behind, queued, waits, ended = (pushed(scheduler, queue) for queue in (a, a, b, c, d))
    assert [r.stage for r in (waits, ended)] == [WAITING] * 2
    scheduler._max_batch = 1
    assert taken(scheduler) == [runs]
    ended.stage, c.queued, b.queued = OVER, True, False
    scheduler._waiting.clear()
    scheduler._ready.clear()
    scheduler.pending, scheduler._running = 77, 9
    scheduler.resident.allocate()
    scheduler._torn = True
    scheduler.settle()
    assert scheduler.pending == 3 and scheduler.waiting == 1 and len(scheduler.resident) == 4
    assert not d.requests and isinstance(ended.error, runtime.StateError)
    assert [q.queued for q in (a, b, c, d)] == [True, True, False, False]
    finished(scheduler, [runs])
    scheduler._max_batch = 64
    assert waits.placed and taken(scheduler) == [queued, behind]
    scheduler._torn = True
    d.closed = True
    scheduler.settle()
    assert set(scheduler.queues.values()) == {a, b, c} and len(scheduler.resident) == 3


def test_dropped_and_departed_streams_go_with_the_next_look(make: Make) -> None:
    scheduler = make()
    a, b, c = opened(scheduler, 3)
    lost = pushed(scheduler, a)
    pool: Any = SimpleNamespace(_scheduler=scheduler)
    PoolStream(pool, a)  # which nobody holds
    scheduler.departed.append(b)
    again = StreamQueue(c.key, -1, 0)
    scheduler.departed.append(again)  # of that name there is another one now
    scheduler.settle()
    assert list(scheduler.queues.values()) == [c] and len(scheduler.resident) == 1 and c.row >= 0
    assert a.closed and isinstance(lost.error, runtime.StateError) and scheduler.pending == 0
    assert not scheduler.dropped and not scheduler.departed


def test_only_who_waits_and_has_a_place_is_told_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = make(max_pending=2, waits=True)
    a, b, c = opened(scheduler, 3)
    first, second, waits = (pushed(scheduler, queue) for queue in (a, b, c))
    assert taken(scheduler) == [first, second] and waits.stage is WAITING
    finished(scheduler, [first])
    late = pushed(scheduler, a)
    finished(scheduler, [second])
    scheduler.fill(late, {"x": CHUNK})
    assert waits.placed and waits.stage is WAITING and late.placed and late.stage is QUEUED
    told: list[PushRequest] = []
    monkeypatch.setattr(scheduler.notifier, "tell_later", told.extend)
    scheduler._torn = True
    scheduler.settle()
    assert told == [waits]


def test_a_stream_that_was_half_closed_is_closed_with_the_next_look(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make()
    (a, b) = opened(scheduler, 2)
    lost, kept = pushed(scheduler, a), pushed(scheduler, b)

    def broken_off(requests: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scheduler.notifier, "tell_later", broken_off)
        with pytest.raises(KeyboardInterrupt):
            scheduler.close_stream(a)
    assert scheduler.pending == 2 and a.requests
    scheduler.settle()
    assert scheduler.pending == 1 and not a.requests and lost.stage is OVER and list(scheduler.queues.values()) == [b]
    assert taken(scheduler) == [kept]
