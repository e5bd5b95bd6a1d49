"""A language model of characters beside the frames of speech: shallow fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import is_number
from rnncore.runtime.errors import InputError
from rnncore.runtime.text.language_model import LanguageModel
from rnncore.runtime.text.token_scorer import TokenScorer, take


class LanguageFusion:
    r"""Scores labels by a language model: :math:`w \log P(\mathrm{label} \mid \mathrm{labels\ before})`.

    A :class:`rnncore.runtime.tasks.prefix_beam.LabelScorer`.  Only prefixes that grow cost a run of the model, all of one frame
    together.  The probabilities of the labels are not made to sum to 1 again: what the model gives to other tokens is lost
    for all of them alike.

    Args:
        model: of single characters (or of tokens that are the labels).
        labels: of the recogniser, in order; each is a token of the model.
        weight: of its logarithms, against those of the frames.

    Raises:
        InputError: a label is no token of the model, or the weight is not finite.
    """

    def __init__(self, model: LanguageModel, labels: Sequence[str], weight: float = 0.5) -> None:
        if not isinstance(model, LanguageModel):
            raise InputError(f"language_model is a {type(model).__name__}, expected a rnncore.runtime.LanguageModel")
        missing = [label for label in labels if label not in model.vocabulary]
        if missing:
            raise InputError(
                f"the language model has no token {missing[0]!r} (nor {len(missing) - 1} more of the labels)"
            )
        if not (is_number(weight) and np.isfinite(weight)):
            raise InputError(f"weight is {weight!r}, expected a finite number")
        self._ids = np.array([model.vocabulary.token_id(label) for label in labels], np.int64)
        self._eos = model.vocabulary.eos_id
        self._scorer = TokenScorer(model.model.engine)
        self._weight = weight

    def start(self) -> tuple[Any, Array]:
        """See :class:`rnncore.runtime.tasks.prefix_beam.LabelScorer`."""
        return self._read(self._scorer.initial_states(1), np.array([self._eos], np.int64))

    def advance(self, state: Any, rows: Array, labels: Array) -> tuple[Any, Array]:
        """See :class:`rnncore.runtime.tasks.prefix_beam.LabelScorer`."""
        states, scores, ends = state
        kept, scores, ends = take(states, rows), scores[rows], ends[rows]
        grown = np.flatnonzero(labels >= 0)
        if len(grown):
            (after, fresh, fresh_ends), _ = self._read(take(kept, grown), self._ids[labels[grown]])
            kept = tuple(_replaced(old, grown, new) for old, new in zip(kept, after, strict=True))
            scores, ends = _replaced(scores, grown, fresh), _replaced(ends, grown, fresh_ends)
        return (kept, scores, ends), scores

    def end(self, state: Any) -> Array:
        """See :class:`rnncore.runtime.tasks.prefix_beam.LabelScorer`: how likely the text ends here."""
        return np.asarray(state[2])

    def _read(self, states: Any, ids: Array) -> tuple[Any, Array]:
        log_probs, after = self._scorer.score_all(states, ids[:, None])
        found = np.asarray(log_probs[:, 0], np.float64)
        weighed = self._weight * found if self._weight else np.zeros_like(found)  # 0 times -infinity is no number
        scores = weighed[:, self._ids]
        return (after, scores, weighed[:, self._eos]), scores


def _replaced(old: Array, rows: Array, new: Array) -> Array:
    result = np.array(old)
    result[rows] = new
    return result
