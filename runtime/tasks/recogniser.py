"""``Recogniser``: frames to labels (speech to text), from a CTC model file and without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.streaming.stream import Stream
from rnncore.runtime.tasks.alignment import align
from rnncore.runtime.tasks.ctc import BLANK, collapse
from rnncore.runtime.tasks.endpointing import Endpointer, Endpointing
from rnncore.runtime.tasks.hot_words import HotWords
from rnncore.runtime.tasks.language_fusion import LanguageFusion
from rnncore.runtime.tasks.prefix_beam import LabelScorer, PrefixBeam
from rnncore.runtime.tasks.task import Sequences, TaskRunner
from rnncore.runtime.text.language_model import LanguageModel


class Hypothesis(NamedTuple):
    """Labels that may have been meant, and their natural-log probability."""

    labels: tuple[str, ...]
    log_prob: float


class LabelTime(NamedTuple):
    """A label, the frames ``start`` to ``end`` (not included) that say it, and their mean log-probability."""

    label: str
    start: int
    end: int
    log_prob: float


class TimedText(NamedTuple):
    """What was said, its natural-log probability by the frames, and when each label was."""

    text: str
    log_prob: float
    labels: list[LabelTime]


@dataclass(frozen=True)
class BeamOptions:
    """How to search for the likeliest text.

    beams: prefixes that are kept at each frame.  language_model: of single characters, see
    :class:`rnncore.runtime.tasks.language_fusion.LanguageFusion`; weight: of its logarithms.  bonus: for every label, against
    the language model's liking for short texts.  hot_words: bonus of a label by word, see
    :class:`rnncore.runtime.tasks.hot_words.HotWords`.
    """

    beams: int = 16
    language_model: LanguageModel | None = None
    weight: float = 0.5
    bonus: float = 0.0
    hot_words: Mapping[str, float] = field(default_factory=dict)


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
        search = self._search(beams)
        search.push(self._run(one))
        return [Hypothesis(self._labels_of(beam.labels), beam.log_prob) for beam in search.best(ended=True)]

    def timed(self, one: Any, *, beams: int | BeamOptions = 16) -> TimedText:
        """As :meth:`recognise`, with the frames of every label."""
        log_probs, search = self._run(one), self._search(beams)
        search.push(log_probs)
        return self._timed(log_probs, search)

    def log_probs(self, one: Any) -> Array:
        """Natural-log probability of blank and every label at every frame, [time, 1 + labels]."""
        return self._run(one)

    def stream(self) -> RecogniserStream:
        """A stream of the labels of the likeliest frames; NotStreamableError for a bidirectional model."""
        return RecogniserStream(self, self.model.stream())

    def beam_stream(self, beams: int | BeamOptions = 16, endpointing: Endpointing | None = None) -> BeamStream:
        """A stream of the best text so far, by prefix beam search; NotStreamableError for a bidirectional model."""
        return BeamStream(self, self.model.stream(), self._search(beams), endpointing)

    def _one_input(self, one: Any) -> Any:
        return self._read(one)

    def _text(self, log_probs: Array, beams: int | BeamOptions | None) -> str:
        if beams is None:
            return self._joined(collapse(np.argmax(log_probs, -1).tolist()))
        search = self._search(beams)
        search.push(log_probs)
        return self._joined(list(search.best(ended=True)[0].labels))

    def _search(self, beams: int | BeamOptions) -> PrefixBeam:
        options = beams if isinstance(beams, BeamOptions) else BeamOptions(beams)
        scorers: list[LabelScorer] = []
        if options.language_model is not None:
            scorers.append(LanguageFusion(options.language_model, self.labels, options.weight))
        if options.hot_words:
            scorers.append(HotWords(options.hot_words, self.labels))
        return PrefixBeam(len(self.labels), options.beams, scorers, options.bonus)

    def _timed(self, log_probs: Array, search: PrefixBeam) -> TimedText:
        best = search.best(ended=True)[0]
        times = [LabelTime(self.labels[found.label - 1], *found[1:]) for found in align(log_probs, best.labels)]
        return TimedText(self._joined(list(best.labels)), best.log_prob, times)

    def _labels_of(self, numbers: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self.labels[i - 1] for i in numbers)

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

    def __init__(
        self, recogniser: Recogniser, stream: Stream, search: PrefixBeam, endpointing: Endpointing | None
    ) -> None:
        self._recogniser = recogniser
        self._stream = stream
        self._search = search
        self._endpointer = None if endpointing is None else Endpointer(endpointing)
        self._heard: list[Array] = []
        self.ended = False
        """Whether the rules of ``endpointing`` say that the utterance is over: call :meth:`finish`."""

    def push(self, frames: Any) -> str:
        """The best text of the utterance so far, which later frames may change.

        A push that fails leaves the stream as it was.
        """
        ahead = self._stream.fork()
        log_probs = np.asarray(ahead.push(self._recogniser._one_input(frames)))
        self._search.push(log_probs)
        self._stream.close()
        self._stream = ahead
        self._heard.append(log_probs)
        if self._endpointer is not None and self._endpointer.push(np.argmax(log_probs, -1)) is not None:
            self.ended = True
        return self._recogniser._joined(list(self._search.best()[0].labels))

    def finish(self) -> TimedText:
        """The utterance, with the frames of its labels counted from its beginning; the next frames begin another one."""
        heard = np.concatenate(self._heard) if self._heard else np.zeros((0, 1 + len(self._recogniser.labels)))
        result = self._recogniser._timed(heard, self._search)
        self._begin()
        return result

    def reset(self) -> None:
        """Back to the beginning, as if nothing had been heard."""
        self._stream.reset()
        self._begin()

    def close(self) -> None:
        """Free the state; pushing afterwards is an error."""
        self._stream.close()

    def _begin(self) -> None:
        self._search.reset()
        self._heard.clear()
        self.ended = False
        if self._endpointer is not None:
            self._endpointer.reset()

    def __enter__(self) -> BeamStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
