"""Exceptions of signal handlers, at any moment: no stream stays busy, no state is half of one and half of another."""

from __future__ import annotations

import functools
import random
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime.interrupts import from_signal_handler
from tests.runtime.data import BOUND, arguments, model, named, sequence, voice
from tests.runtime.files import FEATURES, SPEAKER, Spec, reference
from tests.runtime.interrupting import TimeLimit, interrupted_after, interrupted_at, limit

PLAIN, BOTH, TOKENS = Spec(), Spec(lengths=True, learned=True, last=True, speaker=True), Spec(ids=True, limit=True)


def check_position(spec: Spec, stream: runtime.Stream, whole: np.ndarray, speaker: np.ndarray) -> None:
    """The stream is where its count of steps says: what it answers next shows it."""
    at = stream.steps
    chunk = whole[at : at + 2]
    answer = named(spec, stream.push(*arguments(spec, chunk, speaker)))
    np.testing.assert_allclose(answer["y"], reference(spec, whole, speaker)["y"][at : at + 2], **BOUND)


USES: dict[str, Callable[[Spec, runtime.Stream, np.ndarray, np.ndarray], Any]] = {
    "push of one step": lambda spec, stream, whole, voice_: [
        stream.push(*arguments(spec, whole[t : t + 1], voice_)) for t in range(stream.steps, stream.steps + 2)
    ],
    "push of three": lambda spec, stream, whole, voice_: stream.push(
        *arguments(spec, whole[stream.steps : stream.steps + 3], voice_)
    ),
    "reset": lambda spec, stream, whole, voice_: stream.reset(),
    "set_state": lambda spec, stream, whole, voice_: stream.set_state(stream.state, steps=stream.steps),
    "save": lambda spec, stream, whole, voice_: stream.save(),
    "fork": lambda spec, stream, whole, voice_: stream.fork(),
}


@pytest.mark.parametrize("spec", [PLAIN, BOTH, TOKENS], ids=str)
@pytest.mark.parametrize("use", USES)
def test_whatever_is_broken_off_leaves_a_stream_that_goes_on(spec: Spec, use: str) -> None:
    """At every single operation; a stream that was used before, so that the short way is among those broken off."""
    rng = np.random.default_rng(61)
    whole, speaker = sequence(spec, rng, 40), voice(rng)
    stream = model(spec).stream()
    for t in range(2):
        stream.push(*arguments(spec, whole[t : t + 1], speaker))
    blob, operation, struck = stream.save(), 0, True
    while struck:
        struck = interrupted_at(operation, lambda: USES[use](spec, stream, whole, speaker))
        check_position(spec, stream, whole, speaker)
        if stream.steps > 20:
            stream.set_state(model(spec).restore(blob).state, steps=2)
        operation += 1 if operation < 100 else 5  # then it is the long way through arguments that are checked
    assert operation > 20


@pytest.mark.parametrize("lengths", [(1, 1, 1), (2, 3, 1)])
def test_push_many_moves_all_or_none_whenever_it_is_broken_off(lengths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(62)
    whole = sequence(PLAIN, rng, 9)
    streams = [model(PLAIN).stream() for _ in lengths]
    chunks = [whole[:n] for n in lengths]
    operation, struck = 0, True
    while struck:
        struck = interrupted_at(operation, lambda: model(PLAIN).push_many(streams, chunks))
        steps = tuple(stream.steps for stream in streams)
        assert steps in ((0, 0, 0), lengths), f"operation {operation} moved some streams only"
        for stream in streams:
            if steps[0]:
                check_position(PLAIN, stream, whole, np.zeros(SPEAKER, "f"))
            stream.reset()
        operation += 7  # there are thousands of them, and most are the same
    assert operation > 500


def test_real_signals_in_the_middle_of_pushes() -> None:
    stream, chance = model(PLAIN).stream(), random.Random(0)
    whole = sequence(PLAIN, np.random.default_rng(63), 10_000)
    wanted = reference(PLAIN, whole)["y"]

    def push_on() -> None:
        if stream.steps > 9_000:
            stream.reset()
        for _ in range(50):
            stream.push(whole[stream.steps : stream.steps + 1])

    struck = 0
    for _ in range(1500):
        struck += interrupted_after(chance.random() * 6e-5, push_on)
        at = stream.steps
        np.testing.assert_allclose(stream.push(whole[at : at + 1]), wanted[at : at + 1], **BOUND)
    assert struck > 1400


def test_a_stream_that_is_really_in_use_is_not_taken_over() -> None:
    stream = model(PLAIN).stream()
    entered, leave = threading.Event(), threading.Event()

    def watch(answer: Any) -> None:
        entered.set()
        assert leave.wait(60)

    stop = stream.on_output(watch)
    thread = threading.Thread(target=stream.push, args=(np.zeros((1, FEATURES), "f"),))
    thread.start()
    assert entered.wait(60)
    for use in (stream.save, stream.reset, stream.close, lambda: stream.push(np.zeros((1, FEATURES), "f"))):
        with pytest.raises(runtime.StreamBusyError):
            use()
    with pytest.raises(runtime.StreamBusyError, match="stream 0 is in use"):
        model(PLAIN).push_many([stream], [np.zeros((1, FEATURES), "f")])
    leave.set()
    thread.join()
    stop()
    assert stream.steps == 1
    stream.reset()


@pytest.mark.parametrize("kind", [TimeLimit, RuntimeError, ValueError, TimeoutError, KeyboardInterrupt])
def test_an_exception_of_a_handler_comes_as_itself(kind: type[BaseException]) -> None:
    """Out of a long run, wherever in it the signal arrives; also one of a class that onnxruntime raises too."""

    def raise_it(number: int, frame: Any) -> None:
        raise kind("time is up")

    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        for handler in (raise_it, functools.partial(raise_it)):
            signal.signal(signal.SIGALRM, handler)
            with pytest.raises(kind, match="time is up") as caught:
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                while True:  # whatever the machine, the signal comes in one of them
                    model(PLAIN).run(np.zeros((8, 500, FEATURES), "f"))
            assert type(caught.value) is kind
            assert from_signal_handler(caught.value)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_exception_of_a_handler_in_a_conversion_comes_as_itself() -> None:
    class Slow:
        def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
            signal.raise_signal(signal.SIGALRM)
            return np.zeros((1, FEATURES), "f")

    class Wrong:
        def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
            raise TimeLimit("of its own")

    before = signal.signal(signal.SIGALRM, limit)
    try:
        with model(PLAIN).stream() as stream:
            with pytest.raises(TimeLimit):
                stream.push(Slow())
            with pytest.raises(runtime.InputError, match="of its own"):
                stream.push(Wrong())
            assert stream.steps == 0
    finally:
        signal.signal(signal.SIGALRM, before)
