"""Pushes that meet evictions: answered from the right state or refused, by one lock that decides which; nothing is lost."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec
from tests.service.alone import alone, assert_same
from tests.service.test_eviction import SPEC, WANTED, A, B, until


class Late:
    """A chunk whose conversion lets something else happen first."""

    def __init__(self, values: np.ndarray, happen: Any) -> None:
        self.values = values
        self.happen = happen

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        self.happen()
        return self.values


def use_push(stream: runtime.PoolStream, late: Late) -> Any:
    return stream.push(late)


def use_submit(stream: runtime.PoolStream, late: Late) -> Any:
    return stream.submit(late).result(30)


def use_apush(stream: runtime.PoolStream, late: Late) -> Any:
    import asyncio

    async def main() -> Any:
        return await stream.apush(late)

    return asyncio.run(main())


@pytest.mark.parametrize("use", [use_push, use_submit, use_apush])
def test_a_push_that_meets_its_eviction_is_refused(use: Any) -> None:
    blobs: dict[str, bytes] = {}
    with model(SPEC).pool(max_streams=1, on_evict=blobs.__setitem__) as pool:
        stream = pool.open("one")
        stream.push(A)
        with pytest.raises(runtime.StreamEvictedError, match="restore"):
            use(stream, Late(B, lambda: pool.open("two")))
        assert_same(pool.restore(blobs["one"], "one again").push(B), WANTED[1])


def test_a_push_that_meets_the_parking_of_its_stream_is_answered() -> None:
    with model(SPEC).pool(max_streams=1) as pool:
        stream = pool.open()
        stream.push(A)
        assert_same(stream.push(Late(B, pool.open)), WANTED[1])


def test_a_push_while_the_callback_runs_is_refused_and_goes_on_if_that_fails() -> None:
    met: list[type[Exception]] = []

    def fail(key: str, blob: bytes) -> None:
        try:
            stream.submit(B)
        except runtime.StreamEvictedError as error:
            met.append(type(error))
        raise OSError("disk full")

    with model(SPEC).pool(max_streams=1, on_evict=fail) as pool:
        stream = pool.open()
        stream.push(A)
        pool.open()
        assert met == [runtime.StreamEvictedError]
        assert_same(stream.push(B), WANTED[1])


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_callback_that_wants_to_leave_loses_nothing(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def leave(key: str, blob: bytes) -> None:
        raise kind

    with model(SPEC).pool(max_streams=1, on_evict=leave) as pool:
        stream = pool.open()
        stream.push(A)
        with pytest.raises(kind):
            pool.open()
        assert not stream.evicted
        assert_same(stream.push(B), WANTED[1])
        with pytest.raises(kind):
            pool.close(evict_all=True)
        assert stream.steps == len(A) + len(B) and model(SPEC).restore(stream.save()).steps == stream.steps

    with model(SPEC).pool(max_idle_s=0.01, on_evict=leave) as pool:  # in a thread of the pool it ends nothing
        stream = pool.open()
        stream.push(A)
        caplog.clear()
        until(lambda: caplog.text.count("on_evict failed") >= 2)
        until(lambda: not stream.evicted)
        for _ in range(100):
            try:
                assert_same(stream.push(B), WANTED[1])
                break
            except runtime.StreamEvictedError:
                continue
        else:
            raise AssertionError("never usable again")


def test_closing_hands_over_all_others_when_one_callback_fails() -> None:
    saved: dict[str, bytes] = {}

    def picky(key: str, blob: bytes) -> None:
        if key == "b":
            raise SystemExit
        saved[key] = blob

    pool = model(SPEC).pool(on_evict=picky)
    streams = [pool.open(key) for key in "abcd"]
    with pytest.raises(SystemExit):
        pool.close(evict_all=True)
    assert sorted(saved) == ["a", "c", "d"]
    assert not streams[1].evicted and streams[1].save()


def test_a_key_that_is_used_again_meanwhile_keeps_its_stream() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(key: str, blob: bytes) -> None:
        entered.set()
        assert leave.wait(30)

    with model(SPEC).pool(max_streams=2, on_evict=slow) as pool:
        first, _second = pool.open("key"), pool.open("second")
        opening = threading.Thread(target=pool.open, args=("other",))
        opening.start()
        assert entered.wait(30)
        first.close()
        again = pool.open("key")
        again.push(A)
        leave.set()
        opening.join()
        with pytest.raises(runtime.InputError, match="key 'key' is open"):
            pool.open("key")
        assert_same(again.push(B), WANTED[1])


@pytest.mark.parametrize(("count", "workers"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_no_more_than_max_streams_are_resident_when_parked_ones_come_back(count: int, workers: int) -> None:
    with model(SPEC).pool(max_streams=count, max_wait_ms=0, workers=workers) as pool:
        streams = [pool.open() for _ in range(20)]
        for chunk, wanted in ((A, WANTED[0]), (B, WANTED[1])):
            pushes = [stream.submit(chunk) for stream in streams]  # more at once than may be resident
            while not all(push.done() for push in pushes):
                assert pool.stats()["resident"] <= count
            for push in pushes:
                assert_same(push.result(), wanted)
        for stream in streams:
            stream.reset()
            assert_same(stream.push(A), WANTED[0])
            assert pool.stats()["resident"] <= count
        assert max(pool.stats()["batch_sizes"]) <= count


@pytest.mark.parametrize("workers", [1, 2])
def test_streams_make_room_for_each_other_between_the_parts_of_their_chunks(workers: int) -> None:
    rng = np.random.default_rng(71)
    spec = Spec(learned=True)
    chunks = [sequence(spec, rng, int(n)) for n in rng.integers(3, 12, 12)]
    with model(spec).pool(max_streams=2, slice_steps=2, max_wait_ms=0, workers=workers) as pool:
        streams = [pool.open() for _ in chunks]
        for push, chunk in [(s.submit(c), c) for s, c in zip(streams, chunks, strict=True)]:
            assert_same(push.result(30), alone(spec, [(chunk,)])[0])


def test_a_storm_of_pushes_and_evictions() -> None:
    """Eight threads of clients that come back with what on_evict kept for them; each answer against the stream alone."""
    kept: dict[str, bytes] = {}
    problems: list[BaseException] = []
    counts = {"answers": 0, "evicted": 0}
    keys = itertools.count()
    options: dict[str, Any] = {"max_wait_ms": 0, "on_overload": "wait", "on_evict": kept.__setitem__, "workers": 2}
    with model(SPEC).pool(max_streams=5, **options) as pool:

        def client(seed: int) -> None:
            rng = np.random.default_rng(seed)
            with model(SPEC).stream() as twin:
                key = f"{seed}-{next(keys)}"
                stream = opened(lambda: pool.open(key))
                for _ in range(60):
                    chunk = sequence(SPEC, rng, int(rng.integers(1, 4)))
                    while True:
                        try:
                            found = stream.push(chunk)
                            break
                        except runtime.StreamEvictedError:
                            counts["evicted"] += 1
                            until(lambda key=key: key in kept)
                            blob, key = kept.pop(key), f"{seed}-{next(keys)}"
                            stream = opened(lambda blob=blob, key=key: pool.restore(blob, key))
                    assert_same(found, twin.push(chunk))
                    counts["answers"] += 1

        def guarded(seed: int) -> None:
            try:
                client(seed)
            except BaseException as error:
                problems.append(error)

        crowd = [threading.Thread(target=guarded, args=(seed,)) for seed in range(8)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        assert not problems, problems[0]
        stats = pool.stats()
    assert counts["answers"] == 8 * 60 and counts["evicted"] > 20
    assert stats["failed"] == stats["pending"] == 0 and stats["resident"] <= 5


def opened(opening: Any) -> runtime.PoolStream:
    while True:
        try:
            stream: runtime.PoolStream = opening()
            return stream
        except runtime.Overloaded:
            continue
