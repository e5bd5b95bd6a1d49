"""``TextStream``: a language model that reads one token at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rnncore.runtime.errors import InputError
from rnncore.runtime.streaming.closing import Closing
from rnncore.runtime.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from rnncore.runtime.streaming.stream import Stream


class TextStream(Closing):
    """What comes next in one text that arrives token by token; made by :meth:`rnncore.runtime.LanguageModel.stream`.

    Belongs to one caller at a time.  A push that fails leaves it as it was.
    """

    def __init__(self, stream: Stream, vocabulary: Vocabulary, log_probs: np.ndarray | None = None) -> None:
        self._stream = stream
        self._vocabulary = vocabulary
        self._log_probs = self._advance(vocabulary.eos_id) if log_probs is None else log_probs

    def push(self, token: str | int) -> float:
        """Natural-log probability of ``token`` given everything before it; then the token belongs to what came before.

        Args:
            token: one token as a string (a character, or ``"<eos>"``) or as an id.

        Raises:
            UnknownTokenError: the vocabulary lacks the token.
            InputError: an id out of range.
        """
        token_id = self._id(token)
        log_prob = float(self._log_probs[token_id])
        self._log_probs = self._advance(token_id)
        return log_prob

    def next_log_probs(self) -> np.ndarray:
        """Natural-log probability of every token as the next one, float32 [vocabulary]; a copy."""
        return self._log_probs.copy()

    def fork(self) -> TextStream:
        """A second stream that has read the same; from here on they are independent."""
        return TextStream(self._stream.fork(), self._vocabulary, self._log_probs)

    def reset(self) -> None:
        """Back to the beginning of a text."""
        twin = self._stream.fork()
        twin.reset()
        log_probs = _last(twin.push(np.array([self._vocabulary.eos_id], np.int64)))
        self._stream.close()
        self._stream, self._log_probs = twin, log_probs

    def close(self) -> None:
        """Free the state; pushing afterwards is an error."""
        self._stream.close()

    def _advance(self, token_id: int) -> np.ndarray:
        return _last(self._stream.push(np.array([token_id], np.int64)))

    def _id(self, token: str | int) -> int:
        if isinstance(token, str):
            return self._vocabulary.token_id(token)
        if isinstance(token, bool) or not isinstance(token, int | np.integer):
            raise InputError(f"token is a {type(token).__name__}, expected a str or an integer id")
        if not 0 <= token < len(self._log_probs):
            raise InputError(f"token id is {token}, expected 0 to {len(self._log_probs) - 1}")
        return int(token)


def _last(log_probs: np.ndarray) -> np.ndarray:
    """The row after the last token of [tokens, vocabulary]."""
    row: np.ndarray = log_probs[-1]
    return row
