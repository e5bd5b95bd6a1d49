"""``TaskStream``: one input in chunks, answered in the words of the task."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from rnncore.runtime.arrays import Array
from rnncore.runtime.streaming.stream import Stream

Answer = TypeVar("Answer")


class TaskStream(Generic[Answer]):
    """What :meth:`stream` of a task's class opens.  Belongs to one caller at a time, as :class:`rnncore.runtime.Stream`.

    ``push`` takes the next steps of one input (tokens, ids or floats; a text is read token by token, so cut it between
    tokens) and returns the task's answer.  A push that fails leaves the stream as it was.
    """

    def __init__(
        self, stream: Stream, inputs: Callable[[Any], tuple[Any, ...]], answer: Callable[[Array], Answer]
    ) -> None:
        self._stream = stream
        self._inputs = inputs
        self._answer = answer

    def push(self, chunk: Any) -> Answer:
        """Read the next steps; the answer is that of the task's class."""
        return self._answer(self._stream.push(*self._inputs(chunk)))

    def fork(self) -> TaskStream[Answer]:
        """A second stream that goes on from here."""
        return TaskStream(self._stream.fork(), self._inputs, self._answer)

    def reset(self) -> None:
        """Back to the beginning."""
        self._stream.reset()

    def close(self) -> None:
        """Free the state; pushing afterwards is an error."""
        self._stream.close()

    def __enter__(self) -> TaskStream[Answer]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
