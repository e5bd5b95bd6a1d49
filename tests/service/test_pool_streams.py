"""One stream of a pool: by coroutines, changed by hand, with callbacks, and what fails leaves as it was."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime.session.session import Engine
from tests.runtime.data import model, sequence
from tests.runtime.files import IDS, Spec
from tests.service.alone import alone, assert_same
from tests.service.test_pool import until

SPEC = Spec(lengths=True, learned=True)
A, B = (sequence(SPEC, np.random.default_rng(seed), 3) for seed in (31, 32))
WANTED = alone(SPEC, [(A,), (B,)])
EMPTY = A[:0]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """No call of the model ends before this is set."""
    opened = threading.Event()
    call = Engine.call
    monkeypatch.setattr(Engine, "call", lambda *args: opened.wait(60) and call(*args))
    return opened


def test_coroutines_wait_for_places_and_are_answered_in_their_order(held: threading.Event) -> None:
    async def main() -> None:
        async with model(SPEC).pool(max_pending=1, max_wait_ms=0, on_overload="wait") as pool:
            first, second = pool.open(), pool.open()
            tasks = [
                asyncio.ensure_future(stream.apush(own, timeout_s=60)) for stream, own in ((first, A), (second, A))
            ]
            tasks += [asyncio.ensure_future(first.apush(B)), asyncio.ensure_future(second.apush(B))]
            await asyncio.sleep(0)
            assert (pool.stats()["pending"], pool.stats()["waiting"]) == (1, 3)
            held.set()
            for answer, wanted in zip(await asyncio.gather(*tasks), [WANTED[0]] * 2 + [WANTED[1]] * 2, strict=True):
                assert_same(answer, wanted)
            nothing = await first.apush(EMPTY)
            assert nothing.shape == (0, 11) and first.steps == 6
            stats = pool.stats()
            assert (stats["pushes"], stats["pending"], stats["waiting"], stats["cancelled"]) == (4, 0, 0, 0)
        assert pool.closed

    asyncio.run(main())


def test_coroutines_that_are_late_or_cancelled_leave_nothing_behind(held: threading.Event) -> None:
    async def main() -> None:
        async with model(SPEC).pool(max_wait_ms=0) as pool:
            running, late, left = (pool.open() for _ in range(3))
            task = asyncio.ensure_future(running.apush(A))
            while not pool.stats()["pending"]:
                await asyncio.sleep(0)
            with pytest.raises(runtime.InputError, match=r"^timeout_s is -1, expected seconds of at least 0, or None$"):
                await late.apush(A, timeout_s=-1)
            cancelled = asyncio.ensure_future(left.apush(A))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            held.set()
            assert_same(await task, WANTED[0])
            assert_same(await late.apush(A, timeout_s=np.float32(60)), WANTED[0])
            assert_same(await left.apush(x=A), WANTED[0])
            stats = pool.stats()
            assert stats["pending"] == 0 and stats["expired"] == 0 and left.steps == 3

    asyncio.run(main())


def test_a_deadline_of_a_coroutine_passes_while_others_run(held: threading.Event) -> None:
    async def main() -> None:
        async with model(SPEC).pool(max_wait_ms=0, max_batch=1) as pool:
            running, late = pool.open(), pool.open()
            task = asyncio.ensure_future(running.apush(A))
            while pool._scheduler._running == 0:  # taken by the worker
                await asyncio.sleep(0.001)
            with pytest.raises(runtime.DeadlineExceeded):
                await late.apush(A, timeout_s=0.001)
            assert late.steps == 0 and pool.stats()["expired"] == 1
            held.set()
            await task

    asyncio.run(main())


def test_a_blocking_push_does_not_wait_for_a_coroutine_of_its_own_thread(held: threading.Event) -> None:
    async def main() -> None:
        async with model(SPEC).pool(max_pending=1, max_wait_ms=0, on_overload="wait") as pool:
            streams = [pool.open() for _ in range(3)]
            tasks = [asyncio.ensure_future(stream.apush(A)) for stream in streams[:2]]
            await asyncio.sleep(0)
            for blocked in (streams[1], streams[2]):
                with pytest.raises(runtime.PoolError) as caught:
                    blocked.push(A)
                assert str(caught.value) == (
                    "this push would wait for one that only the event loop of this very thread can go on with, so for "
                    "ever: use `await stream.apush(...)` here"
                )
            held.set()
            for answer in await asyncio.gather(*tasks):
                assert_same(answer, WANTED[0])

    asyncio.run(main())


def test_a_state_is_set_by_name_with_or_without_its_count_or_nothing_changes() -> None:
    with model(SPEC).pool(max_wait_ms=0) as pool:
        stream = pool.open()
        stream.push(A)
        state = stream.state
        assert {name: array.shape for name, array in state.items()} == {"c": (7,), "h": (5,)}
        stream.push(B)
        given = {name: array.copy() for name, array in state.items()}
        stream.set_state(given)
        assert stream.steps == 6, "the count stays where it is"
        for array in given.values():
            array[:] = 0  # the caller's own
        stream.set_state(stream.state, steps=np.int64(3))
        assert stream.steps == 3
        assert_same(stream.push(B), WANTED[1])
        before = stream.save()
        for wrong, says in (
            ({"c": state["c"]}, "state 'h' is missing"),
            ({**state, "q": 1}, "there is no state 'q', expected c, h"),
            ({**state, "h": state["h"][:4]}, "state 'h' has shape [4], the model expects [5]"),
            ([1], "a state is a mapping from name to array, got a list"),
        ):
            with pytest.raises(runtime.StateError) as caught:
                stream.set_state(wrong)  # type: ignore[arg-type]
            assert str(caught.value).startswith(says)
        with pytest.raises(runtime.StateError) as counted:
            stream.set_state(state, steps=-1)
        assert str(counted.value) == (
            f"steps is -1, expected an integer from 0 to {2**63 - 1}: how many led to this state"
        )
        assert stream.save() == before
        stream.reset()
        assert stream.steps == 0
        assert_same(stream.push(A), WANTED[0])


def test_a_fork_goes_on_from_here_without_callbacks_under_a_key_of_its_own() -> None:
    seen: list[Any] = []
    with model(SPEC).pool(max_wait_ms=0) as pool:
        stream = pool.open("first")
        remove = stream.on_output(lambda y: seen.append(y.copy()))
        stream.on_output(lambda y: y + 1)
        assert_same(stream.push(A), WANTED[0] + 1)
        assert_same(seen[0], WANTED[0])
        twin, other = stream.fork("second"), stream.fork()
        assert (twin.key, other.key, twin.steps) == ("second", "1", 3)
        assert_same(twin.push(B), WANTED[1])
        assert len(seen) == 1
        remove()
        assert_same(stream.submit(B).result(60), WANTED[1] + 1)
        stream.push(EMPTY)
        assert len(seen) == 1, "chunks without steps are not shown"
        with pytest.raises(runtime.InputError, match=r"^the output callback is a str, expected a function$"):
            stream.on_output("print")  # type: ignore[arg-type]
        with pytest.raises(runtime.InputError, match=r"^on_evict is a int, expected a function or None$"):
            model(SPEC).pool(on_evict=5)  # type: ignore[arg-type]


def test_a_push_that_fails_fails_alone_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rnncore")
    spec = Spec(ids=True, learned=True)
    ids = np.array([1, 2, 3])
    with model(spec).pool(max_batch=3, max_wait_ms=60_000) as pool:
        streams = [pool.open() for _ in range(3)]
        good, bad, other = (stream.submit(own) for stream, own in zip(streams, (ids, ids + IDS, ids), strict=True))
        with pytest.raises(runtime.InputError, match="holds the id"):
            bad.result(60)
        for push in (good, other):
            assert_same(push.result(60), alone(spec, [(ids,)])[0])
        stats = pool.stats()
        assert (stats["failed"], stats["pending"], streams[1].steps) == (1, 0, 0)
    assert sum(m.startswith("a batch of 3 pushes failed, they are run one by one: ") for m in caplog.messages) == 1


def test_a_stream_that_cannot_count_further_is_told_and_goes_on_when_it_can() -> None:
    with model(SPEC).pool(max_wait_ms=0) as pool:
        stream = pool.open()
        stream.set_state(stream.state, steps=2**63 - 3)
        with pytest.raises(runtime.StateError, match="steps=0"):
            stream.push(A)
        assert stream.steps == 2**63 - 3 and pool.stats()["failed"] == 1
        assert_same(stream.push(A[:2]), WANTED[0][:2])
        assert stream.steps == 2**63 - 1


def test_a_pool_that_nobody_holds_ends_its_threads() -> None:
    before = {thread for thread in threading.enumerate() if thread.name.startswith("rnncore-")}
    pool = model(SPEC).pool(max_idle_s=1000, workers=2)
    mine = [t for t in threading.enumerate() if t.name.startswith("rnncore-") and t not in before]
    assert sorted(thread.name for thread in mine) == [
        "rnncore-idle",
        "rnncore-notifier",
        "rnncore-pool",
        "rnncore-pool",
    ]
    assert all(thread.daemon for thread in mine)
    del pool
    for thread in mine:
        thread.join(60)
    assert not any(thread.is_alive() for thread in mine)


def test_a_pending_stream_is_not_touched_and_says_by_what(held: threading.Event) -> None:
    with model(SPEC).pool(max_wait_ms=0) as pool:
        stream = pool.open()
        start = stream.state
        push = stream.submit(A)
        uses: dict[str, Any] = {
            "save": stream.save,
            "fork": stream.fork,
            "reset": stream.reset,
            "read": lambda: stream.state,
            "change": lambda: stream.set_state(start),
        }
        for verb, use in uses.items():
            with pytest.raises(runtime.StreamBusyError) as caught:
                use()
            assert str(caught.value) == f"pushes of this stream are pending: wait for them before you {verb} it"
        held.set()
        assert_same(push.result(60), WANTED[0])


def test_a_submitted_chunk_waits_for_its_place_and_closing_for_what_runs(held: threading.Event) -> None:
    pool = model(SPEC).pool(max_pending=1, max_wait_ms=0, on_overload="wait")
    first, second = pool.open(), pool.open()
    running = first.submit(A)
    told: list[Any] = []
    waiter = threading.Thread(target=lambda: told.append(second.submit(A, timeout_s=60).result(60)))
    waiter.start()
    until(lambda: pool.stats()["waiting"] == 1)
    held.set()
    waiter.join(60)
    assert_same(running.result(60), WANTED[0])
    assert_same(told[0], WANTED[0])
    held.clear()
    last = first.submit(B)
    until(lambda: pool._scheduler._running == 1)
    assert pool.close(timeout_s=0.01) is False and pool.closed
    held.set()
    assert_same(last.result(60), WANTED[1])
    assert pool.close(timeout_s=60) is True
