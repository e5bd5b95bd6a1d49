"""``Recogniser``: frames to labels (speech to text), from a CTC model file and without PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.streaming.stream import Stream
from rnncore.runtime.tasks.beam_decoding import BeamDecoder, BeamOptions, Hypothesis, TimedText
from rnncore.runtime.tasks.ctc import BLANK, collapse
from rnncore.runtime.tasks.endpointing import Endpointing
from rnncore.runtime.tasks.task import Sequences, TaskRunner


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

    def recognise(self, one: Any, *, beams: int | BeamOptions | None = None) -> str:
        """The labels, joined: those of the likeliest frames, or with ``beams`` the best of a prefix beam search."""
        return self._text(self._run(one), beams)

    def recognise_many(
        self, many: Sequences, lengths: Any = None, *, beams: int | BeamOptions | None = None
    ) -> list[str]:
        """As :meth:`recognise` for each of several inputs."""
        return [self._text(log_probs, beams) for log_probs in self._run_many(many, lengths)]

    def hypotheses(self, one: Any, *, beams: int | BeamOptions = 16) -> list[Hypothesis]:
        """The best label sequences of a prefix beam search, best first: what a language model may rescore.

        The log-probabilities are those of the frames; what :class:`BeamOptions` add decides the order.
        """
        decoder = BeamDecoder(self.labels, beams)
        decoder.push(self._run(one))
        return decoder.hypotheses()

    def timed(self, one: Any, *, beams: int | BeamOptions = 16) -> TimedText:
        """As :meth:`recognise`, with the frames of every label."""
        return self._decoded(self._run(one), beams)

    def log_probs(self, one: Any) -> Array:
        """Natural-log probability of blank and every label at every frame, [time, 1 + labels]."""
        return self._run(one)

    def stream(self) -> RecogniserStream:
        """A stream of the labels of the likeliest frames; NotStreamableError for a bidirectional model."""
        return RecogniserStream(self, self.model.stream())

    def beam_stream(self, beams: int | BeamOptions = 16, endpointing: Endpointing | None = None) -> BeamStream:
        """A stream of the best text so far, by prefix beam search; NotStreamableError for a bidirectional model."""
        return BeamStream(self, self.model.stream(), BeamDecoder(self.labels, beams, endpointing))

    def _one_input(self, one: Any) -> Any:
        return self._read(one)

    def _text(self, log_probs: Array, beams: int | BeamOptions | None) -> str:
        if beams is None:
            return self._joined(collapse(np.argmax(log_probs, -1).tolist()))
        return self._decoded(log_probs, beams).text

    def _decoded(self, log_probs: Array, beams: int | BeamOptions) -> TimedText:
        decoder = BeamDecoder(self.labels, beams)
        decoder.push(log_probs)
        return decoder.finish()

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


class BeamStream:
    """The best text of frames as they come, one utterance after another; belongs to one caller at a time.

    What :meth:`finish` gives is what :meth:`Recogniser.timed` gives for the frames of the utterance, of which the first one
    was heard by a model that has heard what was before.
    """

    def __init__(self, recogniser: Recogniser, stream: Stream, decoder: BeamDecoder) -> None:
        self._recogniser = recogniser
        self._stream = stream
        self._decoder = decoder

    @property
    def ended(self) -> bool:
        """Whether the rules of ``endpointing`` say that the utterance is over: call :meth:`finish`."""
        return self._decoder.ended

    def push(self, frames: Any) -> str:
        """The best text of the utterance so far, which later frames may change.

        A push that fails leaves the stream as it was.
        """
        ahead = self._stream.fork()
        text = self._decoder.push(ahead.push(self._recogniser._one_input(frames)))
        self._stream.close()
        self._stream = ahead
        return text

    def finish(self) -> TimedText:
        """The utterance, with the frames of its labels counted from its beginning; the next frames begin another one."""
        return self._decoder.finish()

    def reset(self) -> None:
        """Back to the beginning, as if nothing had been heard."""
        self._stream.reset()
        self._decoder.reset()

    def close(self) -> None:
        """Free the state; pushing afterwards is an error."""
        self._stream.close()

    def __enter__(self) -> BeamStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
