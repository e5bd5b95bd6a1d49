"""Many threads opening, pushing, forking, saving, resetting and closing at random, against a serial replay."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec
from tests.service.alone import assert_same

SPEC = Spec(lengths=True, learned=True)


class Visitor:
    """One thread: what it does is drawn from its own seed, what it was told is kept for the replay."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.told: list[tuple[int, np.ndarray, np.ndarray]] = []  # stream, chunk (reset: none), answer
        self.error: BaseException | None = None

    def visit(self, pool: runtime.Pool, times: int) -> None:
        try:
            for _ in range(times):
                self._one_stream(pool)
        except BaseException as error:
            self.error = error

    def _one_stream(self, pool: runtime.Pool) -> None:
        number = len(self.told)
        stream = pool.open()
        for _ in range(int(self.rng.integers(1, 12))):
            choice = self.rng.random()
            if choice < 0.1:
                stream.reset()
                self.told.append((number, np.zeros((0, 0), "f"), np.zeros(0)))
            elif choice < 0.15:
                stream = pool.restore(stream.save())
            elif choice < 0.2:
                stream, old = stream.fork(), stream
                old.close()
            else:
                chunk = sequence(SPEC, self.rng, int(self.rng.integers(0, 5)))
                self.told.append((number, chunk, stream.push(chunk)))
        if self.rng.random() < 0.8:
            stream.close()

    def replay(self) -> None:
        stream, now = model(SPEC).stream(), -1
        for number, chunk, answer in self.told:
            if number != now:
                stream, now = model(SPEC).stream(), number
            if chunk.shape == (0, 0):
                stream.reset()
            else:
                assert_same(answer, stream.push(chunk))


def storm(threads: int, times: int, workers: int) -> None:
    """So many threads, each of which opens so many streams: what it takes depends on the machine, what it does does not."""
    visitors = [Visitor(seed) for seed in range(threads)]
    with model(SPEC).pool(max_batch=32, max_wait_ms=1, slice_steps=3, workers=workers) as pool:
        crowd = [threading.Thread(target=visitor.visit, args=(pool, times)) for visitor in visitors]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        stats = pool.stats()
    for visitor in visitors:
        if visitor.error is not None:
            raise visitor.error
        visitor.replay()
    assert stats["failed"] == stats["pending"] == 0
    assert stats["steps"] == sum(len(chunk) for visitor in visitors for _, chunk, _ in visitor.told)


@pytest.mark.parametrize("workers", [1, 2])
def test_thread_storm(workers: int) -> None:
    storm(100, 3, workers)


@pytest.mark.slow
def test_long_thread_storm() -> None:
    storm(200, 25, workers=2)


def test_plain_streams_used_by_everybody_at_once_are_refused_not_raced() -> None:
    """Sixteen threads on four streams: each push is either refused or applied as a whole."""
    streams = [model(SPEC).stream() for _ in range(4)]
    applied: list[list[Any]] = [[] for _ in streams]
    refused = [0]

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(100):
            i = int(rng.integers(4))
            chunk = sequence(SPEC, rng, int(rng.integers(1, 4)))
            try:
                before = streams[i].push(chunk)
            except runtime.StreamBusyError:
                refused[0] += 1
            else:
                applied[i].append(before)

    crowd = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    for stream, answers in zip(streams, applied, strict=True):
        assert stream.steps == sum(len(answer) for answer in answers)
        assert all(np.isfinite(answer).all() for answer in answers)


def test_a_thousand_streams_nothing_lost_nothing_reordered() -> None:
    import asyncio

    rng = np.random.default_rng(13)
    work = [[sequence(SPEC, rng, int(n)) for n in rng.integers(1, 4, 4)] for _ in range(1000)]

    async def main() -> list[list[np.ndarray]]:
        async with model(SPEC).pool(max_pending=5000) as pool:

            async def client(own: list[np.ndarray]) -> list[np.ndarray]:
                with pool.open() as stream:
                    return list(await asyncio.gather(*(stream.apush(chunk) for chunk in own)))

            return list(await asyncio.gather(*map(client, work)))

    for own, found in zip(work, asyncio.run(main()), strict=True):
        with model(SPEC).stream() as stream:
            for chunk, answer in zip(own, found, strict=True):
                assert_same(answer, stream.push(chunk))
