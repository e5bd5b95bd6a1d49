"""What leaves public functions: errors of our tree in a few lines, and whatever a signal handler of the caller raised."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from rnncore import runtime
from rnncore.runtime.error_boundary import MOST_LINES, only_own_errors, pass_on_interruption
from rnncore.runtime.errors import ExportError, InputError, ModelFileError, RnncoreError


class Timeout(Exception):
    """What the caller's handler raises."""


class Handler:
    """One that is no function."""

    def __call__(self, number: int, frame: object) -> None:
        raise Timeout("the caller's own")


@pytest.fixture(params=["function", "method", "partial", "object"])
def alarm(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    def handler(number: int, frame: object) -> None:
        raise Timeout("the caller's own")

    kinds = {"function": handler, "method": Handler().__call__, "partial": partial(handler), "object": Handler()}
    before = signal.signal(signal.SIGUSR1, kinds[request.param])
    try:
        yield lambda: signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def guarded(act: Callable[[], None], where: str = "") -> Callable[[], None]:
    return only_own_errors(ExportError, "the work", (lambda error: where) if where else None)(act)


@pytest.mark.parametrize("failure", [KeyError("samples"), ValueError(), AttributeError("x"), MemoryError("a lot")])
def test_others_become_ours_and_say_what_they_were(failure: Exception) -> None:
    def act() -> None:
        raise failure

    with pytest.raises(ExportError, match=rf"the work failed at model\.py:3: {type(failure).__name__}: ") as caught:
        guarded(act, "model.py:3")()
    assert caught.value.__cause__ is failure


def test_ours_stay_what_they_are_but_short() -> None:
    error = InputError("\n".join(f"line {i}" for i in range(660)))

    def act() -> None:
        raise error

    with pytest.raises(InputError) as caught:
        guarded(act)()
    lines = str(caught.value).splitlines()
    assert caught.value is error and len(lines) == MOST_LINES
    assert lines[0] == "line 0" and lines[-1] == "  ... and 649 more lines"


def test_a_call_that_does_not_fit_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        runtime.load("m.onnx", sates={})  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_no_error_passes(kind: type[BaseException]) -> None:
    def act() -> None:
        raise kind

    with pytest.raises(kind):
        guarded(act)()


def test_what_a_handler_raised_passes_even_if_it_was_caught_on_the_way(alarm: Callable[[], None]) -> None:
    def act() -> None:
        try:
            alarm()
        except Exception as error:
            raise RuntimeError("torch cannot go on") from error

    for function in (alarm, act):
        with pytest.raises(Timeout, match="the caller's own"):
            guarded(function)()


def test_what_a_handler_raised_before_the_call_does_not(alarm: Callable[[], None]) -> None:
    def act() -> None:
        raise KeyError("mine")

    try:
        alarm()
    except Timeout:
        with pytest.raises(ExportError, match="KeyError"):
            guarded(act)()


def test_an_own_failure_is_no_interruption() -> None:
    try:
        raise KeyError("x")
    except KeyError as error:
        pass_on_interruption(error)


@pytest.mark.parametrize("source", [b"", b"\x08", None, 5, ["m.onnx"], "no\0name", {"a": 1}])
def test_load_and_verify_raise_errors_of_our_tree(source: object) -> None:
    for function in (runtime.load, runtime.verify):
        with pytest.raises(RnncoreError) as caught:
            function(source)  # type: ignore[operator]
        assert len(str(caught.value).splitlines()) <= MOST_LINES


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        runtime.load(tmp_path)
