"""From the distributions of CTC frames to text, as they come: the best text so far, and in the end when each label was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.tasks.alignment import align
from rnncore.runtime.tasks.endpointing import Endpointer, Endpointing
from rnncore.runtime.tasks.hot_words import HotWords
from rnncore.runtime.tasks.language_fusion import LanguageFusion
from rnncore.runtime.tasks.prefix_beam import LabelScorer, PrefixBeam
from rnncore.runtime.tensors.array_likes import numbers_of
from rnncore.runtime.text.language_model import LanguageModel


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


class Hypothesis(NamedTuple):
    """Labels that may have been meant, and their natural-log probability."""

    labels: tuple[str, ...]
    log_prob: float


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


class BeamDecoder:
    """One utterance after another, from what any CTC model says about its frames; belongs to one caller at a time.

    A service that steps its models in a pool hands the answers of the pool to one of these for each client.

    Args:
        labels: of the model, without blank, which comes first.
        beams: how many prefixes are kept, or more than that.
        endpointing: when an utterance is over; None: when somebody calls :meth:`finish`.

    Raises:
        InputError: an option is out of range, or does not fit the labels.
    """

    def __init__(
        self, labels: Sequence[str], beams: int | BeamOptions = 16, endpointing: Endpointing | None = None
    ) -> None:
        options = beams if isinstance(beams, BeamOptions) else BeamOptions(beams)
        scorers: list[LabelScorer] = []
        if options.language_model is not None:
            scorers.append(LanguageFusion(options.language_model, labels, options.weight))
        if options.hot_words:
            scorers.append(HotWords(options.hot_words, labels))
        self._labels = tuple(labels)
        self._search = PrefixBeam(len(self._labels), options.beams, scorers, options.bonus)
        self._endpointer = None if endpointing is None else Endpointer(endpointing)
        self._heard: list[Array] = []
        self.text = ""
        """The best text of the utterance so far."""
        self.ended = False
        """Whether the rules of ``endpointing`` say that the utterance is over: call :meth:`finish`."""

    def push(self, log_probs: Any) -> str:
        """The best text of the utterance so far, which later frames may change.

        Args:
            log_probs: natural logarithms [time, 1 + labels], blank first.

        Raises:
            InputError: another shape, NaN or +infinity; the decoder is as it was.
        """
        frames = np.array(numbers_of(log_probs, "frames"))  # the caller may use its array again
        self._search.push(frames)
        self._heard.append(frames)
        if self._endpointer is not None and self._endpointer.push(np.argmax(frames, -1)) is not None:
            self.ended = True
        self.text = self._text(self._search.best()[0].labels)
        return self.text

    def hypotheses(self) -> list[Hypothesis]:
        """The texts that are left if the utterance ends here, best first; log-probabilities are those of the frames."""
        found = self._search.best(ended=True)
        return [Hypothesis(tuple(self._labels[i - 1] for i in beam.labels), beam.log_prob) for beam in found]

    def finish(self) -> TimedText:
        """The utterance, with the frames of its labels counted from its beginning; the next frames begin another one."""
        best = self._search.best(ended=True)[0]
        heard = np.concatenate(self._heard) if self._heard else np.zeros((0, 1 + len(self._labels)))
        times = [LabelTime(self._labels[found.label - 1], *found[1:]) for found in align(heard, best.labels)]
        self.reset()
        return TimedText(self._text(best.labels), best.log_prob, times)

    def reset(self) -> None:
        """A new utterance begins, and this one is forgotten."""
        self._search.reset()
        self._heard.clear()
        self.text, self.ended = "", False
        if self._endpointer is not None:
            self._endpointer.reset()

    def _text(self, numbers: tuple[int, ...]) -> str:
        return "".join(self._labels[i - 1] for i in numbers)
