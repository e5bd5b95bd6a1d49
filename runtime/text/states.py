"""``TextStates``: where a batch of texts has got to, as a value, for somebody else's beam search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, StateError, raise_all
from rnncore.runtime.format.signature import BATCH, TensorSpec
from rnncore.runtime.tensors.specs import Slot
from rnncore.runtime.tensors.validation import read_array
from rnncore.runtime.text.token_scorer import Ids, States, TokenScorer, take

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class _Source:
    """Distinct texts: each one has a row of ``states``, and ``last``, its last token, which is still to be read.

    Texts that differ in their last token only share a row.  ``ahead`` is what reading the last tokens gave, if somebody
    has asked: log-probabilities [texts, vocabulary] and the states afterwards.
    """

    fingerprint: str
    states: States
    rows: Rows
    last: Ids
    ahead: tuple[Array, States] | None = None


class TextStates:
    """Where ``len(states)`` texts have got to.  A value: nothing changes which texts they are, and it holds no resources.

    It remembers what ``next_log_probs`` found, so that going on from there costs no second run.

    Made by :meth:`rnncore.runtime.LanguageModel.initial_states` and ``score_tokens``.  It can be kept, pickled and sent
    to another process that has loaded the same file.  Forking and reordering copy indices, never states.
    """

    __slots__ = ("_view",)

    def __init__(self, source: _Source, index: Rows) -> None:
        self._view = source, index

    def __len__(self) -> int:
        return len(self._view[1])

    def select(self, indices: Sequence[int] | NDArray[Any]) -> TextStates:
        """The texts at ``indices``, in that order: an index named twice forks a text, one left out drops it.

        Raises:
            InputError: not integers, or one out of range, which negative ones are.
        """
        source, index = self._view
        chosen = _read_ids(indices, "indices")
        wrong = chosen[(chosen < 0) | (chosen >= len(index))]
        if len(wrong):
            raise InputError(f"there is no text {wrong[0]}: these are the states of {len(index)} texts")
        return TextStates(source, index[chosen])

    @staticmethod
    def concatenate(parts: Sequence[TextStates]) -> TextStates:
        """All texts of ``parts``, one after the other: the beams of several utterances as one batch.

        Raises:
            InputError: there are no parts.
            StateError: they belong to different models.
        """
        sources = [part._compact() for part in parts]
        if not sources:
            raise InputError("there are no states to concatenate: hand in at least one TextStates")
        if len({source.fingerprint for source in sources}) > 1:
            raise StateError("the states belong to different models")
        starts = np.cumsum([0, *(len(source.states[0]) for source in sources)])[:-1]
        rows = np.concatenate([source.rows + start for source, start in zip(sources, starts, strict=True)])
        states = tuple(np.concatenate(arrays) for arrays in zip(*(source.states for source in sources), strict=True))
        last = np.concatenate([source.last for source in sources])
        return TextStates(_Source(sources[0].fingerprint, states, rows, last), np.arange(len(rows)))

    def _compact(self) -> _Source:
        """A source of exactly these texts, in their order."""
        source, index = self._view
        kept, rows = np.unique(source.rows[index], return_inverse=True)
        return _Source(source.fingerprint, take(source.states, kept), rows, source.last[index])

    def __reduce__(self) -> tuple[Any, ...]:
        return TextStates, (self._compact(), np.arange(len(self)))

    def __repr__(self) -> str:
        return f"<TextStates of {len(self)} texts>"


def initial_states(scorer: TokenScorer, eos_id: int, batch: int) -> TextStates:
    """``batch`` texts at their beginning, which is to read ``<eos>``; one row for all."""
    raise_all(count_problems("batch", batch, 0, numpy=True))
    last = np.array([eos_id], np.int64)
    source = _Source(scorer.engine.fingerprint, scorer.initial_states(1), np.zeros(1, np.intp), last)
    return TextStates(source, np.zeros(batch, np.intp))


def next_log_probs(scorer: TokenScorer, states: TextStates) -> Array:
    """Log-probability of every token as the next one, [batch, vocabulary]; kept, so that going on costs no second run."""
    _check_model(scorer, states)
    source, index = states._view
    if not len(index):
        return np.zeros((0, scorer.size), scorer.engine.layout.outputs[0].dtype)
    if source.ahead is None:
        kept, index = np.unique(index, return_inverse=True)
        rows, last = source.rows[kept], source.last[kept]
        log_probs, after = scorer.score_all(take(source.states, rows), last[:, None])
        source = _Source(source.fingerprint, source.states, rows, last, (log_probs[:, 0], after))
        states._view = source, index  # the same value, and one assignment: safe to race
    assert source.ahead is not None
    return source.ahead[0].take(index, 0)


def score_tokens(scorer: TokenScorer, states: TextStates, tokens: Any) -> tuple[Array, TextStates]:
    """Log-probability of ``tokens[i]`` after text i, and the texts with these tokens added."""
    _check_model(scorer, states)
    source, index = states._view
    ids = _read_ids(tokens, "tokens", scorer.size)
    if len(ids) != len(index):
        raise InputError(f"{len(ids)} tokens for {len(index)} texts: hand in one for each")
    if not len(ids):
        return np.zeros(0, scorer.engine.layout.outputs[0].dtype), states
    if source.ahead is not None:
        log_probs, after = source.ahead[0][index, ids], source.ahead[1]
    else:
        # A text that was forked is read once, and asked for all its next tokens.
        kept, index = np.unique(index, return_inverse=True)
        place = _place_in_group(index)
        asked = np.zeros((len(kept), 1, int(place.max()) + 1), np.int64)
        asked[index, 0, place] = ids
        picked, after = scorer.score(take(source.states, source.rows[kept]), source.last[kept, None], asked)
        log_probs = picked[index, 0, place]
    return log_probs, TextStates(_Source(source.fingerprint, after, index, ids), np.arange(len(ids)))


def _place_in_group(group: Rows) -> Rows:
    """For each member its number among those of the same group: [4, 7, 4, 4] gives [0, 0, 1, 2]."""
    order = np.argsort(group, kind="stable")
    sorted_group = group[order]
    first = np.searchsorted(sorted_group, sorted_group)
    place = np.empty(len(group), np.intp)
    place[order] = np.arange(len(group)) - first
    return place


def _check_model(scorer: TokenScorer, states: TextStates) -> None:
    if not isinstance(states, TextStates):
        raise InputError(f"states is a {type(states).__name__}, expected the TextStates of initial_states()")
    if states._view[0].fingerprint != scorer.engine.fingerprint:
        raise StateError("the states belong to another model: begin with initial_states() of this one")


def _read_ids(value: Any, name: str, limit: int | None = None) -> Ids:
    """A copy of integers [count], each below ``limit``."""
    slot = Slot.of(TensorSpec(name, "int64", (BATCH,), limit))
    problems: list[str] = []
    array = read_array(value, slot, slot.shape, name, problems)
    raise_all(problems)
    return np.array(array, np.int64)
