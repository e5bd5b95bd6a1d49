"""Whoever would wait for the very thread it runs in is told so at once, and nobody else notices."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from tests.runtime.data import model
from tests.service.alone import alone, assert_same
from tests.service.test_pool import SPEC, Gate, chunk, gate

__all__ = ["gate"]  # a fixture
WANTED = alone(SPEC, [(chunk(),)])[0]


def tried(push: Any) -> Any:
    """The answer, or the error."""
    try:
        return push()
    except BaseException as error:
        return error


@pytest.mark.parametrize("busy", [False, True], ids=["pool idle", "pool busy"])
def test_a_push_in_a_callback_of_a_future_is_refused(busy: bool) -> None:
    told: list[Any] = []
    done = threading.Event()
    with model(SPEC).pool(max_wait_ms=0) as pool:
        streams = [pool.open() for _ in range(6)]

        def callback(future: Any) -> None:
            told.append(tried(lambda: streams[1].push(chunk())))
            told.append(tried(lambda: streams[2].submit(chunk())))
            done.set()

        futures = [stream.submit(chunk(400)) for stream in streams[3:]] if busy else []
        streams[0].submit(chunk()).add_done_callback(callback)
        assert_same(streams[5].push(chunk()), alone(SPEC, [(chunk(400),), (chunk(),)])[1] if busy else WANTED)
        assert done.wait(30)
        for future in futures:
            future.result(30)
        error, answer = told
        assert isinstance(error, runtime.PoolError) and "callback" in str(error)
        assert_same(answer.result(30), WANTED)
        assert streams[1].steps == 0
        assert_same(streams[1].push(chunk()), WANTED)


def test_a_push_in_on_output_is_refused_where_the_pool_calls_it_and_answered_where_the_client_does() -> None:
    with model(SPEC).pool(max_wait_ms=0) as pool:
        first, second = pool.open(), pool.open()
        first.on_output(lambda y: second.push(chunk()))
        with pytest.raises(runtime.PoolError, match="callback"):
            first.submit(chunk()).result(30)
        assert second.steps == 0
        assert_same(first.push(chunk()), alone(SPEC, [(chunk(),)])[0])
        assert second.steps == 1


def test_a_push_in_on_evict_is_refused_where_the_pool_calls_it() -> None:
    told: list[Any] = []
    with model(SPEC).pool(max_wait_ms=0, max_idle_s=0.02, on_evict=lambda key, blob: told.append(tried(push))) as pool:
        other = pool.open("other")

        def push() -> Any:
            return other.push(chunk())

        idle = pool.open("idle")  # kept: a stream that nobody holds is closed, not evicted
        idle.push(chunk())
        while not told:
            tried(push)
        assert isinstance(told[0], runtime.PoolError | runtime.StateError)


def test_a_full_pool_is_not_waited_for_in_a_callback(gate: Gate) -> None:
    told: list[Any] = []
    with model(SPEC).pool(max_wait_ms=0, max_pending=2, max_batch=1, on_overload="wait") as pool:
        streams = [pool.open() for _ in range(4)]
        first, second = streams[0].submit(chunk()), streams[1].submit(chunk())

        def fill(future: Any) -> None:
            told.extend(tried(lambda s=s: s.submit(chunk())) for s in streams[1:])

        first.add_done_callback(fill)
        gate.opened.set()
        second.result(30)
        while len(told) < 3:
            assert_same(pool.open().push(chunk(), timeout_s=30), WANTED)
        assert any(isinstance(one, runtime.Overloaded) for one in told) or all(hasattr(one, "result") for one in told)


@pytest.mark.parametrize("way", ["push", "submit"])
def test_on_the_thread_of_the_event_loop_it_does_not_wait_for_its_own_coroutines(way: str) -> None:
    """One place, which a coroutine has; a blocking push would wait for it, and it for the loop."""

    async def main() -> None:
        async with model(SPEC).pool(max_pending=1, on_overload="wait", max_wait_ms=0) as pool:
            streams = [pool.open() for _ in range(3)]
            tasks = [asyncio.ensure_future(stream.apush(chunk())) for stream in streams[:2]]
            await asyncio.sleep(0)
            with pytest.raises(runtime.PoolError, match="apush"):
                getattr(streams[2], way)(chunk())
            with pytest.raises(runtime.PoolError, match="apush"):
                getattr(streams[1], way)(chunk())
            for answer in await asyncio.gather(*tasks):
                assert_same(answer, WANTED)
            assert_same(streams[2].push(chunk()), WANTED)  # where it holds nobody up but the loop, it is answered

    asyncio.run(asyncio.wait_for(main(), 60))


def test_other_threads_wait_as_ever() -> None:
    async def main() -> None:
        async with model(SPEC).pool(max_pending=1, on_overload="wait", max_wait_ms=0) as pool:
            streams = [pool.open() for _ in range(6)]
            answers = await asyncio.gather(
                *(stream.apush(chunk()) for stream in streams[:3]),
                *(asyncio.to_thread(stream.push, chunk()) for stream in streams[3:]),
            )
            for answer in answers:
                assert_same(answer, WANTED)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_push_that_has_begun_does_not_expire(gate: Gate) -> None:
    """Its deadline passes between two of its parts, and while it runs; it is finished and answered all the same."""
    with model(SPEC).pool(max_wait_ms=0, slice_steps=1) as pool:
        stream, other = pool.open(), pool.open()
        long = stream.submit(chunk(7), timeout_s=0.05)
        gate.wait_until_running()
        beside = other.submit(chunk(5))
        assert not gate.opened.wait(0.1), "the deadline passes"
        gate.opened.set()
        assert_same(long.result(30), alone(SPEC, [(chunk(7),)])[0])
        assert_same(beside.result(30), alone(SPEC, [(chunk(5),)])[0])
        assert stream.steps == 7 and pool.stats()["expired"] == 0


@pytest.mark.parametrize("steps", ["12", -1, 1.5, float("nan"), 2**63, True, np.True_], ids=repr)
def test_steps_that_are_no_count_are_refused_and_nobody_else_is_touched(steps: Any) -> None:
    with model(SPEC).pool(max_wait_ms=50) as pool:
        good, bad = [pool.open() for _ in range(3)], pool.open()
        before = bad.state
        with pytest.raises(runtime.StateError, match="steps is"):
            bad.set_state(good[0].state, steps=steps)
        assert bad.steps == 0
        assert all(np.array_equal(bad.state[name], before[name]) for name in before)
        for future in [stream.submit(chunk()) for stream in (*good, bad)]:
            assert_same(future.result(30), WANTED)
        assert all(stream.steps == 1 for stream in good)


def test_one_stream_that_cannot_count_further_fails_alone() -> None:
    with model(SPEC).pool(max_wait_ms=50) as pool:
        good, full = [pool.open() for _ in range(3)], pool.open()
        full.set_state(full.state, steps=2**63 - 1)
        pushes = [stream.submit(chunk()) for stream in (*good, full)]
        for push in pushes[:3]:
            assert_same(push.result(30), WANTED)
        with pytest.raises(runtime.StateError, match="steps=0"):
            pushes[3].result(30)
        assert model(SPEC).restore(full.save()).steps == 2**63 - 1
        full.set_state(full.state, steps=0)
        assert_same(full.push(chunk()), WANTED)
