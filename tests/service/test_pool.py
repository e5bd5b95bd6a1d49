"""A pool answers every stream as if it were alone, and says clearly when it does not."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime.session.session import Engine
from tests.runtime.data import arguments, model, sequence, voice
from tests.runtime.files import FEATURES, IDS, Spec
from tests.service.alone import SPECS, alone, assert_same

SPEC = Spec(lengths=True, learned=True)


class Gate:
    """Holds every call of the model up until it is opened, so that a test decides what is queued and what runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.entered = threading.Semaphore(0)
        call = Engine.call

        def held(*arguments: Any) -> Any:
            self.entered.release()
            assert self.opened.wait(10)
            return call(*arguments)

        monkeypatch.setattr(Engine, "call", held)

    def wait_until_running(self) -> None:
        assert self.entered.acquire(timeout=10)

    def running_before_over(self, push: Future[Any]) -> bool:
        """Wait until ``push`` is run; False if it is over without that."""
        while not push.done():
            if self.entered.acquire(timeout=0.01):
                return True
        return False


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def chunk(steps: int = 1, seed: int = 9) -> np.ndarray:
    return sequence(SPEC, np.random.default_rng(seed), steps)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_answer_is_that_of_the_stream_alone(spec: Spec) -> None:
    """Different lengths, several pushes of a stream pending at once, slices shorter than chunks."""
    rng = np.random.default_rng(10)
    least = 0 if spec.lengths or not spec.last else 1
    work = []
    for _ in range(17):
        speaker = voice(rng)
        lengths = rng.integers(least, 12, 6)
        work.append([arguments(spec, sequence(spec, rng, int(n)), speaker) for n in lengths])

    async def main(pool: runtime.Pool) -> list[list[Any]]:
        streams = [pool.open() for _ in work]

        async def client(stream: runtime.PoolStream, own: list[Any], pipelined: bool) -> list[Any]:
            if pipelined:
                return await asyncio.gather(*(stream.apush(*args) for args in own))
            return [await stream.apush(*args) for args in own]

        answers = await asyncio.gather(
            *(client(s, w, i % 2 == 0) for i, (s, w) in enumerate(zip(streams, work, strict=True)))
        )
        for stream, own in zip(streams, work, strict=True):
            assert stream.steps == sum(len(args[0]) for args in own)
        return answers

    for slice_steps, max_batch, workers in ((5, 4, 2), (100, 64, 1), (1, 17, 3)):
        with model(spec).pool(max_batch=max_batch, slice_steps=slice_steps, max_wait_ms=1, workers=workers) as pool:
            answers = asyncio.run(main(pool))
            stats = pool.stats()
        for own, found in zip(work, answers, strict=True):
            for one, wanted in zip(found, alone(spec, own), strict=True):
                assert_same(one, wanted)
        assert stats["steps"] == sum(len(args[0]) for own in work for args in own)
        assert sum(n * c for n, c in stats["batch_sizes"].items()) >= stats["calls"]
        assert max(stats["batch_sizes"]) <= max_batch


def test_threads_get_the_same_answers_as_coroutines() -> None:
    rng = np.random.default_rng(11)
    work = [[(sequence(SPEC, rng, int(n)),) for n in rng.integers(1, 4, 20)] for _ in range(8)]
    with model(SPEC).pool() as pool, ThreadPoolExecutor(8) as executor:

        def client(own: list[Any]) -> list[Any]:
            with pool.open() as stream:
                return [stream.push(*args) for args in own]

        for own, found in zip(work, executor.map(client, work), strict=True):
            for one, wanted in zip(found, alone(SPEC, own), strict=True):
                assert_same(one, wanted)
        assert pool.stats()["streams"] == 0


def test_streams_share_calls() -> None:
    async def main() -> None:
        async with model(SPEC).pool(max_wait_ms=20_000) as pool:
            streams = [pool.open() for _ in range(16)]
            started = time.monotonic()
            await asyncio.gather(*(stream.apush(chunk()) for stream in streams))
            assert time.monotonic() - started < 15, "nobody waits when everybody is there"
            assert pool.stats()["batch_sizes"] == {16: 1}

    asyncio.run(main())


def test_answers_are_the_callers_own() -> None:
    async def main() -> None:
        async with model(SPEC).pool() as pool:
            streams = [pool.open() for _ in range(2)]
            given = chunk()
            tasks = [asyncio.ensure_future(stream.apush(given)) for stream in streams]
            await asyncio.sleep(0)
            given[:] = 0  # a pushed chunk may be used again at once
            first, second = await asyncio.gather(*tasks)
            wanted = alone(SPEC, [(chunk(),)])[0]
            first[:] = 0
            assert_same(second, wanted)
            assert first.base is None and second.base is None

    asyncio.run(main())


def test_a_bad_chunk_is_refused_before_it_is_queued(gate: Gate) -> None:
    with model(SPEC).pool() as pool:
        stream = pool.open()
        for wrong in (np.ones((1, FEATURES + 1), "f"), "text", None, np.ones(FEATURES, "f")):
            with pytest.raises(runtime.InputError):
                stream.push(wrong)
        assert pool.stats()["pushes"] == 0
        gate.opened.set()


def test_a_stream_that_fails_fails_alone() -> None:
    """Ids beyond the table pass the checks of a file without a limit, and make the whole call fail."""
    spec = Spec(ids=True, lengths=True, last=True)
    rng = np.random.default_rng(12)
    good = [sequence(spec, rng, 3) for _ in range(5)]

    async def main() -> list[Any]:
        async with model(spec).pool(max_batch=6, max_wait_ms=500) as pool:
            streams = [pool.open() for _ in range(6)]
            bad = np.array([1, IDS + 7])
            pushes = [stream.apush(ids) for stream, ids in zip(streams, [*good, bad], strict=True)]
            answers = await asyncio.gather(*pushes, return_exceptions=True)
            stats = pool.stats()
            assert stats["failed"] == 1 and stats["pending"] == 0
            assert streams[5].steps == 0
            again = await streams[5].apush(good[0])
            assert_same(again, alone(spec, [(good[0],)])[0])
            return answers

    answers = asyncio.run(main())
    with pytest.raises(runtime.InputError, match=f"id {IDS + 7}"):
        raise answers[5]
    for one, ids in zip(answers[:5], good, strict=True):
        assert_same(one, alone(spec, [(ids,)])[0])


def test_a_failure_in_a_later_slice_leaves_the_state_as_it_was() -> None:
    spec = Spec(ids=True, learned=True)
    with model(spec).pool(slice_steps=2) as pool:
        stream = pool.open()
        first = stream.push(np.array([1, 2, 3]))
        before = stream.save()
        with pytest.raises(runtime.InputError):
            stream.push(np.array([1, 2, 3, IDS]))
        assert stream.save() == before
        second = stream.push(np.array([4, 5, 6]))
    for found, wanted in zip(
        (first, second), alone(spec, [(np.array([1, 2, 3]),), (np.array([4, 5, 6]),)]), strict=True
    ):
        assert_same(found, wanted)


def test_any_error_of_a_call_reaches_its_push_and_the_pool_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with model(SPEC).pool() as pool:
        stream = pool.open()
        with monkeypatch.context() as patch:
            patch.setattr("rnncore.runtime.pool.worker.run_arrays", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                stream.push(chunk())
        with monkeypatch.context() as patch:
            patch.setattr("rnncore.runtime.pool.worker.plan_slice", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                stream.push(chunk())
        assert_same(stream.push(chunk()), alone(SPEC, [(chunk(),)])[0])


def test_overload_is_an_error_by_choice(gate: Gate) -> None:
    async def main() -> None:
        async with model(SPEC).pool(max_pending=3, max_wait_ms=0) as pool:
            streams = [pool.open() for _ in range(5)]
            tasks = [asyncio.ensure_future(stream.apush(chunk())) for stream in streams]
            await asyncio.sleep(0)
            with pytest.raises(runtime.Overloaded, match="max_pending=3"):
                streams[0].push(chunk())
            gate.opened.set()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(a, runtime.Overloaded) for a in answers] == [False] * 3 + [True] * 2
            assert [s.steps for s in streams] == [1, 1, 1, 0, 0]
            assert pool.stats()["overloaded"] == 3
            await streams[4].apush(chunk())

    asyncio.run(main())


def test_or_it_waits(gate: Gate) -> None:
    async def main() -> None:
        async with model(SPEC).pool(max_pending=3, on_overload="wait") as pool:
            streams = [pool.open() for _ in range(9)]
            tasks = [asyncio.ensure_future(stream.apush(chunk())) for stream in streams]
            await asyncio.sleep(0.01)
            gate.opened.set()
            for answer in await asyncio.gather(*tasks):
                assert_same(answer, alone(SPEC, [(chunk(),)])[0])

    asyncio.run(main())


def test_a_deadline_bounds_the_wait_and_means_not_applied(gate: Gate) -> None:
    with model(SPEC).pool(max_wait_ms=0) as pool, ThreadPoolExecutor(2) as executor:
        first, second = pool.open(), pool.open()
        too_late, patience_s = 0, 0.01
        while not gate.running_before_over(
            running := executor.submit(first.push, chunk(), timeout_s=patience_s)
        ):  # a busy machine may not begin in time
            too_late, patience_s = too_late + 1, 4 * patience_s
        time.sleep(patience_s)
        started = time.monotonic()
        with pytest.raises(runtime.DeadlineExceeded, match="not applied") as caught:
            second.push(chunk(), timeout_s=0.03)
        assert 0.03 <= time.monotonic() - started < 5
        assert isinstance(caught.value, TimeoutError)

        async def later() -> None:
            with pytest.raises(runtime.DeadlineExceeded):
                await second.apush(chunk(), timeout_s=0.03)

        asyncio.run(later())
        gate.opened.set()
        assert_same(running.result(), alone(SPEC, [(chunk(),)])[0])  # it had begun, so it is finished
        assert (first.steps, second.steps) == (1, 0)
        assert pool.stats()["expired"] == 2 + too_late and pool.stats()["pending"] == 0
        with pytest.raises(runtime.InputError, match="timeout_s"):
            second.push(chunk(), timeout_s=-1)
        second.push(chunk(), timeout_s=10)


def test_a_cancelled_push_is_applied_or_not_never_half(gate: Gate) -> None:
    async def main() -> None:
        async with model(SPEC).pool(slice_steps=2, max_wait_ms=0) as pool:  # one worker: what it runs is known
            running, queued, long = pool.open(), pool.open(), pool.open()
            tasks = [asyncio.ensure_future(running.apush(chunk()))]
            await asyncio.to_thread(gate.wait_until_running)
            tasks += [asyncio.ensure_future(queued.apush(chunk())), asyncio.ensure_future(running.apush(chunk(2)))]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            assert all(
                isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*tasks, return_exceptions=True)
            )
            gate.opened.set()
            assert running.save()  # waits for what is being run
            assert (running.steps, queued.steps) == (1, 0)

            gate.opened.clear()
            while gate.entered.acquire(blocking=False):
                pass
            half = asyncio.ensure_future(long.apush(chunk(9)))
            await asyncio.to_thread(gate.wait_until_running)
            half.cancel()
            await asyncio.gather(half, return_exceptions=True)
            gate.opened.set()
            fresh = pool.open()
            assert long.save() == fresh.save()
            assert long.steps == 0
            for stream, before in ((running, [chunk()]), (queued, []), (long, [])):
                wanted = alone(SPEC, [(c,) for c in [*before, chunk(3)]])[-1]
                assert_same(await stream.apush(chunk(3)), wanted)
            assert pool.stats()["cancelled"] == 3 and pool.stats()["pending"] == 0

    asyncio.run(main())


def test_a_pending_stream_is_not_touched(gate: Gate) -> None:
    with model(SPEC).pool(max_wait_ms=0) as pool, ThreadPoolExecutor(1) as executor:
        stream = pool.open()
        start = stream.state
        running = executor.submit(stream.push, chunk())
        gate.wait_until_running()
        uses: dict[str, Callable[[], object]] = {
            "save": stream.save,
            "fork": stream.fork,
            "reset": stream.reset,
            "read": lambda: stream.state,
            "change": lambda: stream.set_state(start),
        }
        for verb, use in uses.items():
            with pytest.raises(runtime.StateError, match=f"pending: wait for them before you {verb} it"):
                use()
        gate.opened.set()
        running.result()
        stream.reset()


def test_closing_a_stream_drops_what_it_has_queued(gate: Gate) -> None:
    with model(SPEC).pool(max_wait_ms=0) as pool, ThreadPoolExecutor(2) as executor:
        stream = pool.open()
        running = executor.submit(stream.push, chunk())
        gate.wait_until_running()
        queued = executor.submit(stream.push, chunk())
        until(lambda: pool.stats()["pending"] == 2)
        stream.close()
        stream.close()
        with pytest.raises(runtime.StateError, match="closed"):
            queued.result()
        gate.opened.set()
        assert_same(running.result(), alone(SPEC, [(chunk(),)])[0])
        for use in (lambda: stream.push(chunk()), stream.save, stream.reset, stream.fork):
            with pytest.raises(runtime.StateError, match="closed"):
                use()
        until(lambda: pool.stats()["resident"] == 0)


def test_closing_the_pool_drains_it(gate: Gate) -> None:
    pool = model(SPEC).pool(max_batch=2, max_wait_ms=50)
    streams = [pool.open() for _ in range(6)]
    with ThreadPoolExecutor(7) as executor:
        pushes = [executor.submit(stream.push, chunk()) for stream in streams]
        until(lambda: pool.stats()["pending"] == 6)
        closing = executor.submit(pool.close)
        until(lambda: pool.closed)
        with pytest.raises(runtime.PoolClosedError):
            streams[0].push(chunk())
        with pytest.raises(runtime.PoolClosedError):
            pool.open()
        gate.opened.set()
        assert closing.result() is True
        for push in pushes:
            assert_same(push.result(), alone(SPEC, [(chunk(),)])[0])
    assert pool.close() is True
    restored = model(SPEC).restore(streams[0].save())
    assert restored.steps == 1, "states outlive the pool"


def test_or_drops_what_is_queued(gate: Gate) -> None:
    pool = model(SPEC).pool(max_batch=1, max_wait_ms=0)
    streams = [pool.open() for _ in range(3)]
    with ThreadPoolExecutor(4) as executor:
        pushes = [executor.submit(stream.push, chunk()) for stream in streams]
        gate.wait_until_running()
        until(lambda: pool.stats()["pending"] == 3)
        assert pool.close(drain=False, timeout_s=0.01) is False
        gate.opened.set()
        assert pool.close() is True
        errors = [push.exception() for push in pushes]
    assert sum(error is None for error in errors) == 1
    assert sum(isinstance(error, runtime.PoolClosedError) for error in errors) == 2


def test_no_thread_is_left_behind() -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        with model(SPEC).pool(max_idle_s=5) as pool:
            pool.open().push(chunk())
    assert set(threading.enumerate()) == before

    forgotten = model(SPEC).pool().open()
    forgotten.push(chunk())  # an open stream keeps its pool
    assert len(threading.enumerate()) == len(before) + 2
    del forgotten
    gc.collect()
    assert set(threading.enumerate()) == before


def test_a_stream_that_is_dropped_gives_its_place_back() -> None:
    with model(SPEC).pool() as pool:
        for _ in range(5):
            pool.open().push(chunk())
        gc.collect()
        assert pool.stats()["streams"] == pool.stats()["resident"] == 0


def test_reset_fork_state_and_snapshots() -> None:
    a, b = chunk(3, 1), chunk(2, 2)
    wanted = alone(SPEC, [(a,), (b,)])
    with model(SPEC).pool() as pool:
        stream = pool.open("first")
        assert_same(stream.push(a), wanted[0])
        blob, state = stream.save(), stream.state
        twin = stream.fork("second")
        assert (stream.key, twin.key) == ("first", "second")
        assert_same(stream.push(b), wanted[1])
        for other in (twin, pool.restore(blob), model(SPEC).restore(blob)):
            assert other.steps == 3
            assert_same(other.push(b), wanted[1])
        stream.set_state(state, steps=3)
        assert stream.save() == blob
        stream.reset()
        assert stream.steps == 0
        assert_same(stream.push(a), wanted[0])
        with pytest.raises(runtime.InputError, match="key 'first' is open"):
            pool.open("first")
        with pytest.raises(runtime.SnapshotError):
            pool.restore(blob[:-1])
        with pytest.raises(runtime.StateError, match="missing"):
            stream.set_state({})


def test_snapshot_files(tmp_path: Any) -> None:
    with model(SPEC).pool() as pool:
        stream = pool.open()
        stream.push(chunk(3))
        stream.save_file(tmp_path / "state")
        assert pool.restore_file(tmp_path / "state").save() == stream.save()
        with pytest.raises(runtime.SnapshotError, match="none"):
            pool.restore_file(tmp_path / "none")


def test_a_long_chunk_does_not_hold_up_short_ones() -> None:
    with model(SPEC).pool(slice_steps=4, max_wait_ms=0) as pool, ThreadPoolExecutor(1) as executor:
        long, short = pool.open(), pool.open()
        whole = chunk(6_000)
        running = executor.submit(long.push, whole)
        answered = 0
        while not running.done():
            short.push(chunk())
            answered += 1
        assert answered > 50
        assert_same(running.result()[-3:], alone(SPEC, [(whole,)])[0][-3:])


def test_slow_consumers_and_fast_ones() -> None:
    """One client takes its time between chunks; the others are done long before it."""

    async def main() -> None:
        async with model(SPEC).pool(max_wait_ms=0) as pool:
            finished: list[int] = []

            async def client(i: int, pause: float) -> None:
                with pool.open() as stream:
                    for _ in range(20):
                        await stream.apush(chunk())
                        await asyncio.sleep(pause)
                finished.append(i)

            await asyncio.gather(client(0, 0.02), *(client(i, 0) for i in range(1, 9)))
            assert finished[-1] == 0

    asyncio.run(main())


def test_warm_up_and_stats() -> None:
    with model(SPEC).pool(max_batch=6) as pool:
        pool.warm_up()
        pool.warm_up([1, 6], steps=[1, 2])
        with pytest.raises(runtime.InputError, match="warm_up"):
            pool.warm_up([0])
        assert pool.stats()["calls"] == 0, "warm-up is not work"
        with pool.open() as stream:
            stream.push(chunk(5))
            stats = pool.stats()
        assert {k: stats[k] for k in ("streams", "pending", "pushes", "steps", "calls")} == {
            "streams": 1,
            "pending": 0,
            "pushes": 1,
            "steps": 5,
            "calls": 1,
        }
        assert stats["batch_sizes"] == {1: 1}
        for times in (stats["queue_wait_ms"], stats["call_ms"]):
            assert list(times) == ["p50", "p90", "p99"]
            assert 0 <= times["p50"] <= times["p99"]
        assert "streams" in repr(pool) and "closed" in repr(stream)


def test_options_are_checked() -> None:
    with pytest.raises(runtime.InputError) as caught:
        model(SPEC).pool(
            max_batch=0,
            max_wait_ms=-1,
            max_pending=True,
            slice_steps=0,
            max_streams=0,
            max_idle_s=0,
            workers=0,
            on_overload="no",  # type: ignore[arg-type]
        )
    for name in (
        "workers",
        "max_batch",
        "max_wait_ms",
        "max_pending",
        "slice_steps",
        "max_streams",
        "max_idle_s",
        "on_overload",
    ):
        assert name in str(caught.value)


def test_only_models_that_stream_have_pools() -> None:
    from tests.runtime.files import not_causal_file

    with pytest.raises(runtime.NotStreamableError):
        runtime.load(not_causal_file()).pool()
