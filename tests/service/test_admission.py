"""A full pool that lets pushes wait: in the order of their coming, without a copy of their chunks, until they go away."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from tests.runtime.data import model
from tests.service.alone import alone, assert_same
from tests.service.test_pool import SPEC, Gate, chunk, gate, until

__all__ = ["gate"]  # a fixture


def waiting_pool(places: int, **options: Any) -> runtime.Pool:
    return model(SPEC).pool(max_pending=places, on_overload="wait", max_wait_ms=0, **options)


def test_no_more_than_max_pending_have_a_place_and_the_first_come_is_the_first_served(gate: Gate) -> None:
    """Four coroutines and four threads on two places; chunks that wait are not copied, so they may still change."""
    order: list[int] = []

    async def main(pool: runtime.Pool) -> None:
        streams = [pool.open() for _ in range(10)]
        late = chunk()

        async def client(i: int) -> Any:
            answer = await streams[i].apush(late if i == 9 else chunk())
            order.append(i)
            return answer

        tasks = []
        for i in range(10):
            tasks.append(asyncio.ensure_future(client(i)))
            await asyncio.sleep(0)
        await asyncio.to_thread(gate.wait_until_running)
        stats = pool.stats()
        assert (stats["pending"], stats["waiting"], stats["pushes"]) == (2, 8, 2)
        late[:] = chunk(seed=8)
        gate.opened.set()
        *answers, last = await asyncio.gather(*tasks)
        for answer in answers:
            assert_same(answer, alone(SPEC, [(chunk(),)])[0])
        assert_same(last, alone(SPEC, [(chunk(seed=8),)])[0])
        assert order == list(range(10))
        assert pool.stats()["pending"] == pool.stats()["waiting"] == 0

    with waiting_pool(2, max_batch=1) as pool:
        asyncio.run(main(pool))


def test_pushes_of_one_stream_keep_their_order_while_they_wait(gate: Gate) -> None:
    chunks = [chunk(n, seed) for seed, n in enumerate((1, 3, 2, 1, 4, 2))]

    async def main(pool: runtime.Pool) -> list[Any]:
        stream, other = pool.open(), pool.open()
        tasks = [asyncio.ensure_future(stream.apush(own)) for own in chunks[:3]]
        blocker = asyncio.ensure_future(other.apush(chunk()))
        await asyncio.to_thread(gate.wait_until_running)
        gate.opened.set()
        while pool.stats()["waiting"]:  # some have their place and do not know it yet: nobody passes them
            tasks += [asyncio.ensure_future(stream.apush(own)) for own in chunks[len(tasks) : len(tasks) + 1]]
            await asyncio.sleep(0)
        tasks += [asyncio.ensure_future(stream.apush(own)) for own in chunks[len(tasks) :]]
        await blocker
        return list(await asyncio.gather(*tasks))

    with waiting_pool(1) as pool:
        answers = asyncio.run(main(pool))
    for found, wanted in zip(answers, alone(SPEC, [(own,) for own in chunks]), strict=True):
        assert_same(found, wanted)


def test_who_gives_up_or_is_late_takes_no_place(gate: Gate) -> None:
    async def main(pool: runtime.Pool) -> None:
        streams = [pool.open() for _ in range(5)]
        tasks = [asyncio.ensure_future(streams[0].apush(chunk()))]
        await asyncio.to_thread(gate.wait_until_running)
        tasks.append(asyncio.ensure_future(streams[1].apush(chunk())))
        tasks.append(asyncio.ensure_future(streams[2].apush(chunk(), timeout_s=0.02)))
        tasks.append(asyncio.ensure_future(streams[3].apush(chunk())))
        with pytest.raises(runtime.DeadlineExceeded):
            await asyncio.to_thread(streams[4].push, chunk(), timeout_s=0.02)
        tasks[1].cancel()
        with pytest.raises(runtime.DeadlineExceeded):
            await tasks[2]
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert pool.stats()["waiting"] == 1
        gate.opened.set()
        assert_same(await tasks[3], alone(SPEC, [(chunk(),)])[0])
        stats = pool.stats()
        assert {k: stats[k] for k in ("pending", "waiting", "pushes", "expired", "cancelled")} == {
            "pending": 0,
            "waiting": 0,
            "pushes": 2,
            "expired": 2,
            "cancelled": 1,
        }
        assert [stream.steps for stream in streams] == [1, 0, 0, 1, 0]
        for stream in streams:
            await stream.apush(chunk())

    with waiting_pool(1) as pool:
        asyncio.run(main(pool))


def test_an_event_loop_that_is_gone_gives_its_place_back(gate: Gate) -> None:
    with waiting_pool(1) as pool, ThreadPoolExecutor(1) as executor:
        streams = [pool.open() for _ in range(3)]
        running = executor.submit(streams[0].push, chunk())
        gate.wait_until_running()
        loop = asyncio.new_event_loop()
        lost = streams[1].apush(chunk())
        task = loop.create_task(lost)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        assert pool.stats()["waiting"] == 1
        gate.opened.set()
        running.result()
        assert_same(streams[2].push(chunk(), timeout_s=10), alone(SPEC, [(chunk(),)])[0])
        assert streams[1].steps == 0 and not task.done()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        lost.close()


def test_closing_tells_those_who_wait(gate: Gate) -> None:
    pool = waiting_pool(1)
    streams = [pool.open() for _ in range(4)]
    with ThreadPoolExecutor(4) as executor:
        running = executor.submit(streams[0].push, chunk())
        gate.wait_until_running()
        pushes = [executor.submit(stream.push, chunk()) for stream in streams[1:3]]
        until(lambda: pool.stats()["waiting"] == 2)
        streams[2].close()
        with pytest.raises(runtime.StateError, match="closed"):
            pushes[1].result()
        closing = executor.submit(pool.close)
        with pytest.raises(runtime.PoolClosedError):
            pushes[0].result()
        gate.opened.set()
        assert_same(running.result(), alone(SPEC, [(chunk(),)])[0])
        assert closing.result() is True


def test_many_threads_on_few_places() -> None:
    """Every push waits for its place; nothing is lost and no place is."""
    with waiting_pool(3, max_batch=2, workers=2) as pool, ThreadPoolExecutor(12) as executor:
        streams = [pool.open() for _ in range(12)]

        def client(stream: runtime.PoolStream) -> list[Any]:
            answers = []
            for seed in range(25):
                try:
                    answers.append((seed, stream.push(chunk(2, seed), timeout_s=1e-4 if seed % 5 == 4 else 30)))
                except runtime.DeadlineExceeded:
                    assert seed % 5 == 4
            return answers

        for answers in executor.map(client, streams):
            seeds = [seed for seed, _ in answers]
            assert len(seeds) >= 20
            for (_, found), wanted in zip(answers, alone(SPEC, [(chunk(2, s),) for s in seeds]), strict=True):
                assert_same(found, wanted)
        stats = pool.stats()
        assert stats["pending"] == stats["waiting"] == 0
        assert stats["steps"] == sum(stream.steps for stream in streams)


def test_submitted_chunks_come_as_futures() -> None:
    chunks = [chunk(n, seed) for seed, n in enumerate((1, 0, 3, 2))]
    with model(SPEC).pool() as pool:
        stream = pool.open()
        futures = [stream.submit(own, timeout_s=30) for own in chunks]
        wanted = alone(SPEC, [(own,) for own in chunks])
        for future, expected in zip(futures, wanted, strict=True):
            assert type(future) is Future
            assert_same(future.result(10), expected)
            assert future.result().base is None
        stream.on_output(lambda y: y + 1)
        with model(SPEC).stream() as twin:
            twin.set_state(stream.state)
            assert_same(stream.submit(chunk()).result(10), twin.push(chunk()) + 1)
        stream.on_output(lambda y: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stream.submit(chunk()).result(10)
        with pytest.raises(runtime.InputError):
            stream.submit("text")
        stream.close()
        with pytest.raises(runtime.StateError):
            stream.submit(chunk())


def test_callbacks_that_go_wrong_hurt_nobody_else(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """Called while the next batch is run, and with nothing to run; what one of them raises ends no thread of the pool."""
    told: list[int] = []

    def leave(number: int) -> None:
        told.append(number)
        sys.exit()

    with model(SPEC).pool(max_batch=2, max_wait_ms=0) as pool:
        streams = [pool.open() for _ in range(6)]
        futures = [stream.submit(chunk(2, i)) for i, stream in enumerate(streams)]
        for i, future in enumerate(futures):
            future.add_done_callback(lambda _, i=i: leave(i))
        gate.opened.set()
        for i, future in enumerate(futures):
            assert_same(future.result(10), alone(SPEC, [(chunk(2, i),)])[0])
        assert_same(streams[0].push(chunk(1, 7)), alone(SPEC, [(chunk(2, 0),), (chunk(1, 7),)])[1])
    assert told == list(range(6))
    assert caplog.text.count("a callback of a push failed") == 6


def test_a_callback_that_closes_the_pool_does_not_wait_for_itself(gate: Gate) -> None:
    closed: list[bool] = []
    with model(SPEC).pool(max_batch=1, max_wait_ms=0) as pool:
        first, second = (stream.submit(chunk()) for stream in (pool.open(), pool.open()))
        for future in (first, second):  # one while the next push is run, one with nothing to run
            future.add_done_callback(lambda _: closed.append(pool.close()))
        gate.opened.set()
        assert_same(second.result(10), alone(SPEC, [(chunk(),)])[0])
        until(lambda: len(closed) == 2)
        assert closed == [False, False]
        assert pool.close() is True


def test_submitted_chunks_can_be_withdrawn(gate: Gate) -> None:
    with waiting_pool(3) as pool:
        streams = [pool.open() for _ in range(4)]
        running = streams[0].submit(chunk())
        gate.wait_until_running()
        queued, late = (stream.submit(chunk()) for stream in streams[1:3])
        assert queued.cancel() and running.cancel()
        with pytest.raises(CancelledError):
            queued.result()
        late_too = streams[3].submit(chunk(), timeout_s=0)
        waiter = threading.Thread(target=lambda: streams[1].submit(chunk()).result(10))
        waiter.start()
        until(lambda: pool.stats()["waiting"] == 1)
        gate.opened.set()
        waiter.join(10)
        assert_same(late.result(10), alone(SPEC, [(chunk(),)])[0])
        with pytest.raises(runtime.DeadlineExceeded):
            late_too.result(10)
        assert streams[0].steps == 1, "it had begun: it is applied, its answer is dropped"
        assert [stream.steps for stream in streams[1:]] == [1, 1, 0]
        assert pool.stats()["pending"] == 0
    assert np.isfinite(late.result()).all()
