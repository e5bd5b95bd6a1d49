"""Idle streams leave the batch arrays: parked without a callback, handed over with one."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec
from tests.service.alone import alone, assert_same

SPEC = Spec(lengths=True, learned=True)
A, B = (sequence(SPEC, np.random.default_rng(seed), 3) for seed in (1, 2))
WANTED = alone(SPEC, [(A,), (B,)])


def until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_parked_stream_comes_back_by_itself() -> None:
    with model(SPEC).pool(max_idle_s=0.02) as pool:
        stream = pool.open()
        assert_same(stream.push(A), WANTED[0])
        until(lambda: pool.stats()["resident"] == 0)
        assert pool.stats()["streams"] == 1 and not stream.evicted
        blob = stream.save()
        assert pool.stats()["resident"] == 0, "to look at it does not wake it"
        assert_same(stream.fork().push(B), WANTED[1])
        assert_same(stream.push(B), WANTED[1])
        assert_same(pool.restore(blob).push(B), WANTED[1])
        until(lambda: pool.stats()["resident"] == 0)
        stream.reset()
        assert_same(stream.push(A), WANTED[0])


def test_an_evicted_stream_is_handed_over() -> None:
    saved: dict[str, bytes] = {}
    with model(SPEC).pool(max_idle_s=0.02, on_evict=saved.__setitem__) as pool:
        stream = pool.open("anna")
        stream.push(A)
        until(lambda: "anna" in saved and pool.stats()["streams"] == 0)
        assert stream.evicted
        for use in (lambda: stream.push(B), stream.save, stream.reset):
            with pytest.raises(runtime.StreamEvictedError, match="restore"):
                use()
        again = pool.restore(saved["anna"], "anna")
        assert again.steps == 3
        assert_same(again.push(B), WANTED[1])
        assert pool.stats()["evicted"] >= 1
        stream.close()
        assert not again.closed


def test_the_longest_idle_one_makes_room() -> None:
    saved: dict[str, bytes] = {}
    with model(SPEC).pool(max_streams=2, on_evict=saved.__setitem__) as pool:
        first, second = pool.open("1"), pool.open("2")
        first.push(A)
        second.push(A)
        first.push(B)
        third = pool.open("3")
        assert list(saved) == ["2"] and second.evicted and not first.evicted
        assert_same(pool.restore(saved["2"], "2").push(B), WANTED[1])
        third.close()
        assert pool.stats()["resident"] <= 2


def test_parked_streams_share_few_places() -> None:
    with model(SPEC).pool(max_streams=2) as pool:
        streams = [pool.open() for _ in range(7)]
        assert pool.stats()["resident"] == 2
        for stream in streams:
            assert_same(stream.push(A), WANTED[0])
        for stream in reversed(streams):
            assert_same(stream.push(B), WANTED[1])


def test_without_an_idle_one_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from tests.service.test_pool import Gate

    gate = Gate(monkeypatch)
    with model(SPEC).pool(max_streams=1, max_wait_ms=0) as pool, ThreadPoolExecutor(1) as executor:
        running = executor.submit(pool.open().push, A)
        gate.wait_until_running()
        with pytest.raises(runtime.Overloaded, match="max_streams=1"):
            pool.open()
        gate.opened.set()
        running.result()
        pool.open()


def test_a_callback_that_fails_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(key: str, blob: bytes) -> None:
        raise OSError("disk full")

    with model(SPEC).pool(max_idle_s=0.02, on_evict=fail) as pool:
        stream = pool.open()
        stream.push(A)
        until(lambda: "disk full" in caplog.text)
        until(lambda: not stream.evicted)
        assert_same(stream.push(B), WANTED[1])


def test_a_slow_callback_holds_up_nobody() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(key: str, blob: bytes) -> None:
        if key == "idle":
            entered.set()
            assert leave.wait(10)

    with model(SPEC).pool(max_idle_s=0.1, on_evict=slow) as pool:
        busy = pool.open("busy")
        idle = pool.open("idle")
        idle.push(A)
        while not entered.is_set():
            busy.push(A[:1])
        for _ in range(20):
            busy.push(A[:1])
        leave.set()
        until(lambda: idle.evicted)


def test_closing_can_hand_over_everything() -> None:
    saved: dict[str, bytes] = {}
    pool = model(SPEC).pool(on_evict=saved.__setitem__)
    streams = [pool.open(key) for key in "abc"]
    streams[1].push(A)
    pool.close(evict_all=True)
    assert sorted(saved) == ["a", "b", "c"]
    assert model(SPEC).restore(saved["b"]).steps == 3
