"""``Recogniser``: frames to labels (speech to text), from a CTC model file and without PyTorch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.streaming.stream import Stream
from rnncore.runtime.tasks.ctc import BLANK, beam_search, collapse
from rnncore.runtime.tasks.task import Sequences, TaskRunner


class Hypothesis(NamedTuple):
    """Labels that may have been meant, and their natural-log probability."""

    labels: tuple[str, ...]
    log_prob: float


class Recogniser(TaskRunner):
    """A file of ``rnncore.Recogniser``; see :class:`rnncore.runtime.tasks.task.TaskRunner` for what it reads.

    ::

        recogniser = Recogniser.load("speech.onnx")
        recogniser.recognise(frames)                    # "please hold": labels joined
        recogniser.recognise(frames, beams=16)          # adds up all ways of saying the same
        with recogniser.stream() as stream:             # a model of one direction: text as it comes
            print(stream.push(frames[:50]), end="")
    """

    task = "recogniser"
    output = (BATCH, TIME)

    def recognise(self, one: Any, *, beams: int | None = None) -> str:
        """The labels, joined: those of the likeliest frames, or with ``beams`` the likeliest of a prefix beam search."""
        return self._text(self._run(one), beams)

    def recognise_many(self, many: Sequences, lengths: Any = None, *, beams: int | None = None) -> list[str]:
        """As :meth:`recognise` for each of several inputs."""
        return [self._text(log_probs, beams) for log_probs in self._run_many(many, lengths)]

    def hypotheses(self, one: Any, *, beams: int = 16) -> list[Hypothesis]:
        """The likeliest label sequences of a prefix beam search, best first: what a language model may rescore."""
        found = beam_search(self._run(one), beams)
        return [Hypothesis(tuple(self.labels[i - 1] for i in labels), log_prob) for labels, log_prob in found]

    def log_probs(self, one: Any) -> Array:
        """Natural-log probability of blank and every label at every frame, [time, 1 + labels]."""
        return self._run(one)

    def stream(self) -> RecogniserStream:
        """A stream of the labels of the likeliest frames; NotStreamableError for a bidirectional model."""
        return RecogniserStream(self, self.model.stream())

    def _one_input(self, one: Any) -> Any:
        return self._read(one)

    def _text(self, log_probs: Array, beams: int | None) -> str:
        if beams is None:
            return self._joined(collapse(np.argmax(log_probs, -1).tolist()))
        return self._joined(list(beam_search(log_probs, beams)[0][0]))

    def _joined(self, labels: list[int]) -> str:
        return "".join(self.labels[i - 1] for i in labels)

    def _outputs_expected(self) -> int:
        return 1 + len(self.labels)


class RecogniserStream:
    """Text of frames as they come; belongs to one caller at a time.  What the pushes return, joined, is ``recognise``."""

    def __init__(self, recogniser: Recogniser, stream: Stream, previous: int = BLANK) -> None:
        self._recogniser = recogniser
        self._stream = stream
        self._previous = previous

    def push(self, frames: Any) -> str:
        """The labels that these frames add, joined; often none.  A push that fails leaves the stream as it was."""
        path = np.argmax(self._stream.push(self._recogniser._one_input(frames)), -1).tolist()
        labels = collapse(path, self._previous)
        self._previous = path[-1] if path else self._previous
        return self._recogniser._joined(labels)

    def fork(self) -> RecogniserStream:
        """A second stream that goes on from here."""
        return RecogniserStream(self._recogniser, self._stream.fork(), self._previous)

    def reset(self) -> None:
        """Back to the beginning."""
        self._stream.reset()
        self._previous = BLANK

    def close(self) -> None:
        """Free the state; pushing afterwards is an error."""
        self._stream.close()

    def __enter__(self) -> RecogniserStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
