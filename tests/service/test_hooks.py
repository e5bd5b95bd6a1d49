"""Callbacks on outputs: they see every chunk, may change outputs, and never the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from tests.runtime.data import model, sequence, voice
from tests.runtime.files import OUT, Spec
from tests.service.alone import assert_same

SPEC = Spec(lengths=True, learned=True)
RNG = np.random.default_rng(6)
A, B = sequence(SPEC, RNG, 3), sequence(SPEC, RNG, 2)


def test_it_sees_what_push_returns_and_the_state_goes_on() -> None:
    stream, twin = model(SPEC).stream(), model(SPEC).stream()
    seen: list[np.ndarray] = []
    stream.on_output(lambda y: seen.append(y.copy()))
    for chunk in (A, B[:1], B[1:]):
        wanted = twin.push(chunk)
        np.testing.assert_array_equal(stream.push(chunk), wanted)
        np.testing.assert_array_equal(seen[-1], wanted)
    assert stream.save() == twin.save()


def test_it_may_replace_outputs_in_turn() -> None:
    stream, twin = model(SPEC).stream(), model(SPEC).stream()
    bias = np.arange(OUT, dtype="f")
    remove = stream.on_output(lambda y: y + bias)
    stream.on_output(lambda y: y * 2)
    wanted = twin.push(A)
    np.testing.assert_array_equal(stream.push(A), (wanted + bias) * 2)
    remove()
    np.testing.assert_array_equal(stream.push(B), twin.push(B) * 2)
    assert stream.save() == twin.save(), "the state knows nothing of it"


def test_several_outputs_come_by_name() -> None:
    spec = Spec(lengths=True, learned=True, last=True, speaker=True)
    speaker = voice(RNG)
    stream, twin = model(spec).stream(), model(spec).stream()
    stream.on_output(lambda out: {"last": out["last"] * 0})
    found, wanted = stream.push(A, speaker), twin.push(A, speaker)
    np.testing.assert_array_equal(found["y"], wanted["y"])
    assert not found["last"].any()


@pytest.mark.parametrize(
    "wrong",
    [lambda y: y[:1], lambda y: y.astype(complex), lambda y: "text", lambda y: {"y": y}],
    ids=["shape", "dtype", "text", "dict"],
)
def test_a_wrong_replacement_is_refused_and_the_stream_is_as_it_was(wrong: Callable[[Any], Any]) -> None:
    stream = model(SPEC).stream()
    stream.push(A)
    before = stream.save()
    remove = stream.on_output(wrong)
    with pytest.raises(runtime.InputError, match="output callback returned"):
        stream.push(A)
    assert stream.save() == before
    remove()
    stream.push(A)


def test_an_exception_leaves_the_stream_as_it_was() -> None:
    stream, other = model(SPEC).stream(), model(SPEC).stream()
    before = stream.save()

    def fail(y: Any) -> None:
        raise ZeroDivisionError

    stream.on_output(fail)
    with pytest.raises(ZeroDivisionError):
        stream.push(A)
    with pytest.raises(ZeroDivisionError):
        stream.push(A[:1])
    with pytest.raises(ZeroDivisionError):
        model(SPEC).push_many([other, stream], [A, A])
    assert stream.save() == before
    assert other.save() == before


def test_it_works_in_push_many_for_its_own_stream_only() -> None:
    streams = [model(SPEC).stream() for _ in range(3)]
    streams[1].on_output(lambda y: -y)
    first, second, third = model(SPEC).push_many(streams, [A] * 3)
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(second, -first)


def test_chunks_without_steps_are_not_shown_and_forks_start_without() -> None:
    stream = model(SPEC).stream()
    seen: list[Any] = []
    stream.on_output(seen.append)
    stream.push(A[:0])
    model(SPEC).push_many([stream], [A[:0]])
    stream.fork().push(A)
    assert seen == []


def test_it_cannot_use_the_stream() -> None:
    stream = model(SPEC).stream()
    stream.on_output(lambda y: stream.reset())
    with pytest.raises(runtime.StreamBusyError):
        stream.push(A)


def test_in_a_pool_it_is_called_by_the_one_who_pushed() -> None:
    import threading

    threads = []
    with model(SPEC).pool(max_wait_ms=0) as pool, model(SPEC).stream() as twin:
        stream = pool.open()
        stream.on_output(lambda y: threads.append(threading.current_thread()))
        remove = stream.on_output(lambda y: y + 1)
        assert_same(stream.push(A), twin.push(A) + 1)
        assert threads == [threading.current_thread()]

        def fail(y: Any) -> None:
            raise ZeroDivisionError

        stop = stream.on_output(fail)
        with pytest.raises(ZeroDivisionError):
            stream.push(B)
        twin.push(B)
        assert stream.steps == twin.steps, "in a pool the chunk has been applied"
        stop()
        remove()
        assert_same(stream.push(A), twin.push(A))
