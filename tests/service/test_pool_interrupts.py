"""Exceptions of signal handlers in the thread that uses a pool: at any moment, and nobody waits for ever afterwards."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.ma  # now: an import that is broken off leaves a file open, of which Python warns
import pytest

from rnncore import runtime
from rnncore.runtime.pool import notifier
from tests.runtime.data import BOUND, model, sequence
from tests.runtime.files import Spec, reference
from tests.runtime.interrupting import TimeLimit, interrupted_after, interrupted_at
from tests.service.test_eviction import until

SPEC = Spec(lengths=True, learned=True)
WHOLE = sequence(SPEC, np.random.default_rng(81), 5000)
Y = reference(SPEC, WHOLE)["y"]


def room(stream: runtime.PoolStream, steps: int) -> int:
    """Where the stream is, at its start again if fewer ``steps`` than that are left of the sequence."""
    if stream.steps + steps > len(WHOLE):
        stream.reset()
    return stream.steps


def check_position(stream: runtime.PoolStream) -> None:
    """The stream is where its count of steps says, and its next push is answered."""
    while True:
        try:
            _ = stream.state  # waits for what is still being run for nobody
            break
        except runtime.StreamBusyError:  # chunks that were submitted before the signal are answered first
            time.sleep(1e-3)
    at = room(stream, 2)
    np.testing.assert_allclose(stream.push(WHOLE[at : at + 2], timeout_s=60), Y[at : at + 2], **BOUND)


def push_on(pool: runtime.Pool, stream: runtime.PoolStream) -> None:
    for _ in range(20):
        at = room(stream, 1)
        stream.push(WHOLE[at : at + 1])


def submit_on(pool: runtime.Pool, stream: runtime.PoolStream) -> None:
    at = room(stream, 6)
    for future in [stream.submit(WHOLE[at + i : at + i + 1]) for i in range(6)]:
        future.result()


def come_and_go(pool: runtime.Pool, stream: runtime.PoolStream) -> None:
    for _ in range(6):
        with pool.open() as other:
            other.push(WHOLE[:1])
            pool.restore(other.save()).close()


def change(pool: runtime.Pool, stream: runtime.PoolStream) -> None:
    for _ in range(8):
        at = stream.steps
        stream.set_state(stream.state, steps=at)
        stream.fork().close()
        pool.stats()


@pytest.mark.parametrize("use", [push_on, submit_on, come_and_go, change])
@pytest.mark.parametrize(
    "options",
    [{}, {"max_pending": 2, "on_overload": "wait", "workers": 2}, {"max_streams": 3, "workers": 2}],
    ids=["plain", "few places", "few streams"],
)
def test_nothing_is_left_behind(
    use: Callable[[runtime.Pool, runtime.PoolStream], None], options: dict[str, Any]
) -> None:
    """While a second client goes on; after each signal both streams are where they say, in the end the pool is empty."""
    chance, struck = random.Random(3), 0
    with model(SPEC).pool(max_wait_ms=0, **options) as pool:
        stream, other = pool.open(), pool.open()
        stop, problems = threading.Event(), []

        def second() -> None:
            try:
                while not stop.is_set():
                    check_position(other)
            except BaseException as error:
                problems.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        for _ in range(120):
            struck += interrupted_after(chance.random() * 2e-3, lambda: use(pool, stream))
            check_position(stream)
        stop.set()
        thread.join(60)
        assert not thread.is_alive() and not problems, problems
        until(lambda: pool.stats()["pending"] == pool.stats()["waiting"] == 0)
        until(lambda: pool.stats()["streams"] == 2)
        assert pool.stats()["resident"] <= 2
        assert struck > 100


def test_a_stream_that_is_collected_at_that_moment_is_closed() -> None:
    with model(SPEC).pool() as pool:
        held = [pool.open()]
        interrupted_at(0, held.clear, deleting=True)
        assert pool.stats()["streams"] == 0


def test_coroutines_are_told_though_their_loop_was_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception comes when the event loop was about to hear of answers: asyncio logs it, and nobody has been told."""
    told = notifier._complete_in_loop
    struck: list[int] = []

    def struck_at_first(due: Any) -> None:
        if len(struck) < 3:
            struck.append(len(due))
            raise TimeLimit
        told(due)

    monkeypatch.setattr(notifier, "_complete_in_loop", struck_at_first)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        async with model(SPEC).pool(max_wait_ms=0) as pool:
            streams = [pool.open() for _ in range(8)]
            for t in range(3):
                for answer in await asyncio.gather(*(stream.apush(WHOLE[t : t + 1]) for stream in streams)):
                    np.testing.assert_allclose(answer, Y[t : t + 1], **BOUND)

    asyncio.run(asyncio.wait_for(main(), 120))
    assert len(struck) == 3
