"""When an utterance is over: the rules of Kaldi's online endpointing, on frames that say "no label"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import raise_all


@dataclass(frozen=True)
class Endpointing:
    """An utterance is over after as many frames as one of these says; at 30 ms a frame the defaults are 0.8, 5 and 20 s.

    after_speech: in a row without a label, once there was one.  without_speech: in a row when there was none.
    longest: of an utterance, whatever is said.

    Raises:
        InputError: lists what is no integer of at least 1.
    """

    after_speech: int = 27
    without_speech: int = 167
    longest: int = 667

    def __post_init__(self) -> None:
        raise_all([problem for name, value in vars(self).items() for problem in count_problems(name, value)])


class Endpointer:
    """Counts frames of one utterance after another; belongs to one caller at a time."""

    def __init__(self, rules: Endpointing) -> None:
        self._rules = rules
        self.reset()

    def reset(self) -> None:
        """A new utterance begins."""
        self._frames = self._silent = 0
        self._spoken = False

    def push(self, labels: np.ndarray) -> int | None:
        """How many of these frames (likeliest label of each, 0 for blank) end the utterance; None if it goes on."""
        for count, label in enumerate(np.asarray(labels).tolist(), 1):
            self._frames += 1
            self._spoken |= label != 0
            self._silent = self._silent + 1 if label == 0 else 0
            enough = self._rules.after_speech if self._spoken else self._rules.without_speech
            if self._silent >= enough or self._frames >= self._rules.longest:
                return count
        return None
