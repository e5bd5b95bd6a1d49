"""What a pool and its streams say of themselves and of wrong arguments, and what closing waits for."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime.pool.eviction import longest_idle
from rnncore.runtime.pool.pool import _powers_of_two
from rnncore.runtime.session.session import Engine
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec
from tests.service.alone import alone, assert_same

SPEC = Spec(lengths=True, learned=True)
A = sequence(SPEC, np.random.default_rng(21), 3)
WANTED = alone(SPEC, [(A,), (A,)])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_batch": 0}, "max_batch is 0, expected an integer of at least 1"),
        ({"max_pending": 1.0}, "max_pending is 1.0, expected an integer of at least 1"),
        ({"slice_steps": True}, "slice_steps is True, expected an integer of at least 1"),
        ({"workers": -1}, "workers is -1, expected an integer of at least 1"),
        ({"max_streams": "2"}, "max_streams is '2', expected an integer of at least 1"),
        ({"max_wait_ms": -0.5}, "max_wait_ms is -0.5, expected milliseconds of at least 0"),
        ({"max_wait_ms": float("inf")}, "max_wait_ms is inf, expected milliseconds of at least 0"),
        ({"max_idle_s": 0}, "max_idle_s is 0, expected seconds above 0, or None"),
        ({"max_idle_s": float("inf")}, "max_idle_s is inf, expected seconds above 0, or None"),
        ({"on_overload": "ERROR"}, "on_overload is 'ERROR', expected 'error' or 'wait'"),
        (
            {"max_batch": 0, "on_overload": None},
            "2 problems:\n  - max_batch is 0, expected an integer of at least 1\n"
            "  - on_overload is None, expected 'error' or 'wait'",
        ),
    ],
)
def test_each_wrong_option_is_named_with_what_was_expected(options: dict[str, Any], says: str) -> None:
    with pytest.raises(runtime.InputError) as caught:
        model(SPEC).pool(**options)
    assert str(caught.value) == says


def test_the_least_of_each_option_is_taken() -> None:
    least: dict[str, Any] = dict.fromkeys(("max_batch", "max_pending", "slice_steps", "workers", "max_streams"), 1)
    with model(SPEC).pool(**least, max_wait_ms=0, max_idle_s=1e-3) as pool:
        assert_same(pool.open().push(A), WANTED[0])
        assert pool.stats()["calls"] == 3


def test_it_says_how_many_streams_it_has_and_whether_it_is_closed() -> None:
    pool = model(SPEC).pool()
    stream, named = pool.open(), pool.open("anna")
    assert repr(pool) == "<Pool of 2 streams, 0 pending>"
    stream.push(A)
    assert (repr(stream), repr(named)) == ("<PoolStream '1' at step 3>", "<PoolStream 'anna' at step 0>")
    assert (stream.key, stream.steps, stream.closed, stream.evicted) == ("1", 3, False, False)
    named.close()
    assert repr(named) == "<PoolStream 'anna' closed>" and named.closed and not pool.closed
    pool.close()
    assert repr(pool) == "<Pool of 1 streams, closed>" and pool.closed
    with pytest.raises(runtime.PoolClosedError, match=r"^the pool is closed: open a new one with model.pool\(\)$"):
        pool.open()


def test_keys_are_made_up_around_those_in_use() -> None:
    with model(SPEC).pool() as pool:
        streams = [pool.open("2"), pool.open(), pool.open()]
        assert [stream.key for stream in streams] == ["2", "1", "3"]
        with pytest.raises(runtime.InputError) as taken:
            pool.open("2")
        assert str(taken.value) == "a stream with the key '2' is open: close it, or use another key"
        with pytest.raises(runtime.InputError, match=r"^key is a int, expected a str$"):
            pool.open(2)  # type: ignore[arg-type]


def test_a_full_pool_says_what_it_takes_and_counts_whom_it_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = threading.Event()
    call = Engine.call
    monkeypatch.setattr(Engine, "call", lambda *args: opened.wait(30) and call(*args))
    with model(SPEC).pool(max_streams=2, max_wait_ms=0) as pool:
        streams = [pool.open() for _ in range(2)]
        pushes = [stream.submit(A) for stream in streams]
        with pytest.raises(runtime.Overloaded) as caught:
            pool.open()
        assert str(caught.value) == (
            "2 streams are open and none is idle, the pool takes max_streams=2: close some, or try again later"
        )
        assert pool.stats()["overloaded"] == 1
        with pool._scheduler.lock:
            assert longest_idle(pool._scheduler) is None
        opened.set()
        for push in pushes:
            push.result(30)
        streams[1].push(A)
        with pool._scheduler.lock:
            assert longest_idle(pool._scheduler) is streams[0]._queue


def test_warm_up_runs_each_size_with_each_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    call = Engine.call

    def noted(engine: Engine, arrays: Any, states: Any, lengths: Any, batch: int, steps: int) -> Any:
        sizes.append((batch, steps))
        assert not any(array.any() for array in arrays.values()) and list(lengths) == [steps] * batch
        return call(engine, arrays, states, lengths, batch, steps)

    monkeypatch.setattr(Engine, "call", noted)
    with model(SPEC).pool(max_batch=6) as pool:
        pool.warm_up()
        assert sizes == [(1, 1), (2, 1), (4, 1), (6, 1)]
        sizes.clear()
        pool.warm_up([3], steps=(2, 5))
        assert sizes == [(3, 2), (3, 5)]
        for sizes_given, steps in (([True], (1,)), ([2, 0], (1,)), ([2], (1.0,)), ([1], (0,))):
            with pytest.raises(
                runtime.InputError, match=r"^warm_up got the size \S+, expected integers of at least 1$"
            ):
                pool.warm_up(sizes_given, steps)  # type: ignore[arg-type]
    assert [_powers_of_two(top) for top in (1, 2, 8, 9)] == [[1], [1, 2], [1, 2, 4, 8], [1, 2, 4, 8, 9]]


class Growing:
    """A chunk that is longer whenever it is looked at."""

    def __init__(self) -> None:
        self.looks = 0

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        self.looks += 1
        return np.concatenate([A] * self.looks)


def test_a_chunk_that_changes_its_length_while_it_waits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = threading.Event()
    call = Engine.call
    monkeypatch.setattr(Engine, "call", lambda *args: opened.wait(30) and call(*args))
    with model(SPEC).pool(max_pending=1, max_wait_ms=0, on_overload="wait") as pool:
        first, second = pool.open(), pool.open()
        running = first.submit(A)
        threading.Timer(0.02, opened.set).start()
        with pytest.raises(runtime.InputError) as caught:
            second.push(Growing())
        assert str(caught.value).endswith(": leave it as it is until its turn")
        assert str(caught.value).startswith("the chunk had 3 steps and has 6 now")
        assert_same(running.result(30), WANTED[0])
        assert_same(second.push(A), WANTED[0])
        assert pool.stats()["pending"] == pool.stats()["waiting"] == 0


def test_wrong_time_limits_are_named() -> None:
    with model(SPEC).pool(max_wait_ms=0) as pool:
        stream = pool.open()
        for use in (stream.push, stream.submit):
            with pytest.raises(runtime.InputError) as caught:
                use(A, timeout_s=-1)
            assert str(caught.value) == "timeout_s is -1, expected seconds of at least 0, or None"
        with pytest.raises(runtime.InputError) as caught:
            pool.close(timeout_s="1")  # type: ignore[arg-type]
        assert str(caught.value) == "timeout_s is '1', expected seconds of at least 0, or None"
        assert not pool.closed


def test_a_snapshot_that_cannot_be_read_is_named_by_its_path(tmp_path: Any) -> None:
    with model(SPEC).pool() as pool:
        stream = pool.open()
        stream.push(A)
        stream.save_file(tmp_path / "state")
        again = pool.restore_file(tmp_path / "state", "again")
        assert (again.key, again.steps) == ("again", 3)
        (tmp_path / "state").write_bytes(stream.save()[:-1])
        with pytest.raises(runtime.SnapshotError) as caught:
            pool.restore_file(tmp_path / "state")
        assert str(caught.value).startswith(f"{tmp_path / 'state'}: ") and "None" not in str(caught.value)


def test_closing_waits_for_a_state_that_is_being_handed_over() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(key: str, blob: bytes) -> None:
        entered.set()
        assert leave.wait(30)

    pool = model(SPEC).pool(max_idle_s=1e-3, on_evict=slow)
    stream = pool.open()
    assert entered.wait(30)
    assert pool.close(timeout_s=0.01) is False
    leave.set()
    assert pool.close() is True and stream.evicted


def test_closing_hands_nothing_over_unless_it_is_asked_to() -> None:
    saved: dict[str, bytes] = {}
    pool = model(SPEC).pool(on_evict=saved.__setitem__)
    stream = pool.open("a")
    assert pool.close() is True and saved == {} and not stream.evicted
    assert pool.close(evict_all=True) is True and list(saved) == ["a"] and stream.evicted
    other = model(SPEC).pool()
    assert other.open("b") and other.close(evict_all=True) is True


def test_a_callback_that_fails_is_logged_by_its_stream(caplog: pytest.LogCaptureFixture) -> None:
    def fail(key: str, blob: bytes) -> None:
        raise OSError("disk full")

    pool = model(SPEC).pool(on_evict=fail)
    stream = pool.open("anna")
    stream.push(A)
    before = stream._queue.last_used
    pool.close(evict_all=True)
    (record,) = caplog.records
    assert record.getMessage() == "on_evict failed for stream 'anna', which keeps its state"
    assert record.exc_info and not stream.evicted and stream._queue.last_used > before
    assert model(SPEC).restore(stream.save()).steps == 3
