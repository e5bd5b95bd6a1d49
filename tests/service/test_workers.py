"""Several workers in one pool: side by side, and as right as one."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime.session.session import Engine
from tests.runtime.data import model, sequence
from tests.service.alone import alone, assert_same
from tests.service.test_pool import SPEC, chunk, until

WANTED = alone(SPEC, [(chunk(),), (chunk(),)])
LONG = 77  # steps of the chunk whose call is held


class Held:
    """Holds the calls of :data:`LONG` steps up until it is opened; other calls pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.entered = threading.Event(), threading.Semaphore(0)
        call = Engine.call

        def held(engine: Engine, arrays: Any, states: Any, lengths: Any, batch: int, steps: int) -> Any:
            if steps == LONG:
                self.entered.release()
                assert self.opened.wait(30)
            return call(engine, arrays, states, lengths, batch, steps)

        monkeypatch.setattr(Engine, "call", held)

    def wait_until_running(self) -> None:
        assert self.entered.acquire(timeout=30)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


def test_a_batch_that_takes_long_holds_up_its_own_streams_only(held: Held) -> None:
    """Nobody waits for those that are being run to fill a batch, either."""
    with model(SPEC).pool(workers=2, slice_steps=LONG, max_wait_ms=60_000) as pool:
        streams = [pool.open() for _ in range(5)]
        slow, others = streams[:3], streams[3:]
        long = [stream.submit(chunk(LONG)) for stream in slow]
        held.wait_until_running()
        for wanted in WANTED:
            for push in [stream.submit(chunk()) for stream in others]:
                assert_same(push.result(30), wanted)
        assert not any(push.done() for push in long) and [stream.steps for stream in slow] == [0, 0, 0]
        with pytest.raises(runtime.StreamBusyError):
            slow[0].save()
        queued = [stream.submit(chunk()) for stream in slow]
        held.opened.set()
        wanted = alone(SPEC, [(chunk(LONG),), (chunk(),)])
        for first, second in zip(long, queued, strict=True):
            assert_same(first.result(30), wanted[0])
            assert_same(second.result(30), wanted[1])


def test_two_batches_run_side_by_side_and_no_third(held: Held) -> None:
    with model(SPEC).pool(workers=2, max_batch=1, slice_steps=LONG, max_wait_ms=0) as pool:
        streams = [pool.open() for _ in range(3)]
        pushes = [stream.submit(chunk(LONG)) for stream in streams]
        held.wait_until_running()
        held.wait_until_running()
        assert pool.stats()["pending"] == 3
        assert not held.entered.acquire(timeout=0.05)
        held.opened.set()
        for push in pushes:
            assert_same(push.result(30), alone(SPEC, [(chunk(LONG),)])[0])
        assert pool.stats()["batch_sizes"] == {1: 3}


def test_what_is_being_run_stays_resident(held: Held) -> None:
    """Streams come back from where they were parked while all but one place are taken by a batch that runs."""
    with model(SPEC).pool(workers=2, max_streams=2, slice_steps=LONG, max_wait_ms=0) as pool:
        streams = [pool.open() for _ in range(6)]
        for stream in streams:
            assert_same(stream.push(chunk()), WANTED[0])
        long = streams[0].submit(chunk(LONG))
        held.wait_until_running()
        for stream in streams[1:]:
            assert_same(stream.push(chunk(), timeout_s=30), WANTED[1])
            assert pool.stats()["resident"] <= 2
        held.opened.set()
        assert_same(long.result(30), alone(SPEC, [(chunk(),), (chunk(LONG),)])[1])
        assert_same(streams[0].push(chunk()), alone(SPEC, [(chunk(),), (chunk(LONG),), (chunk(),)])[2])


def test_batches_that_run_side_by_side_hold_no_more_than_max_streams(held: Held) -> None:
    with model(SPEC).pool(workers=2, max_streams=3, slice_steps=LONG, max_wait_ms=0) as pool:
        streams = [pool.open() for _ in range(8)]  # most of them parked
        pushes = [stream.submit(chunk(LONG)) for stream in streams]
        held.wait_until_running()
        held.wait_until_running()
        assert pool.stats()["resident"] <= 3
        held.opened.set()
        for push in pushes:
            assert_same(push.result(30), alone(SPEC, [(chunk(LONG),)])[0])
        assert max(pool.stats()["batch_sizes"]) == 1


def test_what_one_worker_leaves_half_done_the_other_goes_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: it is woken, and does not look up from time to time."""
    monkeypatch.setattr("rnncore.runtime.pool.scheduler._LONGEST_NAP_S", 1e4)
    long = chunk(400)
    with model(SPEC).pool(workers=2, slice_steps=1) as pool:
        assert_same(pool.open().submit(long).result(60), alone(SPEC, [(long,)])[0])


def test_a_callback_that_waits_for_somebody_else_holds_up_no_thread() -> None:
    told, go_on = threading.Event(), threading.Event()

    def callback(future: Any) -> None:
        told.set()
        assert go_on.wait(30)

    with model(SPEC).pool(workers=2, max_wait_ms=0) as pool:
        first, second = pool.open(), pool.open()
        first.submit(chunk()).add_done_callback(callback)
        assert told.wait(30)
        third = pool.open().submit(chunk())  # told when the callback is done; until then no worker waits for it
        for wanted in WANTED:
            assert_same(second.push(chunk(), timeout_s=30), wanted)
        assert not third.done()
        assert pool.close(timeout_s=0.01) is False
        go_on.set()
        assert_same(third.result(30), WANTED[0])


@pytest.mark.parametrize("workers", [2, 4])
def test_callbacks_of_a_stream_come_in_the_order_of_its_pushes(workers: int) -> None:
    rng = np.random.default_rng(14)
    chunks = [[sequence(SPEC, rng, int(n)) for n in rng.integers(1, 6, 40)] for _ in range(5)]
    order: list[list[int]] = [[] for _ in chunks]
    with model(SPEC).pool(workers=workers, max_batch=2, slice_steps=2, max_wait_ms=0) as pool:
        streams = [pool.open() for _ in chunks]
        futures: list[list[Any]] = [[] for _ in chunks]
        for turn in range(40):
            for i, stream in enumerate(streams):
                future = stream.submit(chunks[i][turn])
                future.add_done_callback(lambda _, i=i, turn=turn: order[i].append(turn))
                futures[i].append(future)
        for i, own in enumerate(futures):
            for found, wanted in zip(own, alone(SPEC, [(c,) for c in chunks[i]]), strict=True):
                assert_same(found.result(30), wanted)
    assert order == [list(range(40))] * 5  # closing the pool waits for the last callback


def test_closing_ends_every_thread_and_answers_what_is_queued(held: Held) -> None:
    before = set(threading.enumerate())
    pool = model(SPEC).pool(workers=3, max_batch=1, slice_steps=LONG, max_wait_ms=0)
    streams = [pool.open() for _ in range(7)]
    pushes = [stream.submit(chunk(LONG)) for stream in streams]
    for _ in range(3):
        held.wait_until_running()
    assert pool.close(timeout_s=0.01) is False
    held.opened.set()
    assert pool.close() is True
    for push in pushes:
        assert_same(push.result(0), alone(SPEC, [(chunk(LONG),)])[0])
    assert set(threading.enumerate()) == before
    held.opened.clear()

    pool = model(SPEC).pool(workers=2, slice_steps=LONG, max_wait_ms=0)
    stream = pool.open()
    push = stream.submit(chunk(LONG))
    held.wait_until_running()
    assert pool.close(timeout_s=0.01) is False
    until(
        lambda: names(before) == ["rnncore-notifier", "rnncore-pool"]
    )  # whoever tells stays for the worker that is left
    held.opened.set()
    assert_same(push.result(30), alone(SPEC, [(chunk(LONG),)])[0])
    assert pool.close() is True

    pool = model(SPEC).pool(workers=2, max_streams=1)  # a second worker would have nothing to run
    assert names(before) == ["rnncore-notifier", "rnncore-pool"]
    pool.close()


def names(before: set[threading.Thread]) -> list[str]:
    """Of the threads of pools, without those that were there before, of some other test's pool."""
    new = set(threading.enumerate()) - before
    return sorted(thread.name for thread in new if thread.name.startswith("rnncore-"))


def test_closing_without_drain_drops_what_no_worker_runs(held: Held) -> None:
    pool = model(SPEC).pool(workers=2, max_batch=1, slice_steps=LONG, max_wait_ms=0)
    streams = [pool.open() for _ in range(5)]
    pushes = [stream.submit(chunk(LONG)) for stream in streams]
    held.wait_until_running()
    held.wait_until_running()
    assert pool.close(drain=False, timeout_s=0.01) is False
    held.opened.set()
    assert pool.close() is True
    errors = [push.exception(30) for push in pushes]
    assert sum(error is None for error in errors) == 2
    assert sum(isinstance(error, runtime.PoolClosedError) for error in errors) == 3
    until(lambda: sum(stream.steps for stream in streams) == 2 * LONG)
