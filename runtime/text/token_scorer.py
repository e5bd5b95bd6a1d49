"""Token ids in, log-probabilities of asked tokens out: the one call that all scoring of texts is made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.session.session import Engine

Ids = NDArray[np.int64]
States = tuple[Array, ...]
"""Every recurrent state, [batch, size] each, in the order of the signature."""


class Scored(NamedTuple):
    """Log-probabilities [batch, steps, asked], and the states after the last step."""

    log_probs: Array
    states: States


class TokenScorer:
    """A model of one input, token ids [batch, time], and one output, log-probabilities [batch, time, vocabulary]."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        layout = engine.layout
        self.size = int(layout.outputs[0].shape[2])
        self._ids = layout.inputs[0].name
        self._log_probs = layout.outputs[0].name

    def initial_states(self, batch: int) -> States:
        """The states of texts of which nothing was read, not even ``<eos>``."""
        return tuple(self.engine.initial_states(batch).values())

    def score(self, states: States, read: Ids, asked: Ids) -> Scored:
        """Read ``read`` [batch, steps]; after each step, how likely is each of ``asked`` [batch, steps, asked]?"""
        return self._scored(self.engine.call_picked({self._ids: read}, self._named(states), asked))

    def score_all(self, states: States, read: Ids) -> Scored:
        """As :meth:`score` for the whole vocabulary."""
        batch, steps = read.shape
        return self._scored(self.engine.call({self._ids: read}, self._named(states), None, batch, steps))

    def steps_of_one_call(self, steps: int) -> int:
        """``steps``, or the ``max_steps`` that the model was loaded with if that is less."""
        limit = self.engine.layout.max_steps
        return steps if limit is None else min(steps, limit)

    def _named(self, states: States) -> dict[str, Array]:
        return {slot.name: array for slot, array in zip(self.engine.layout.states, states, strict=True)}

    def _scored(self, values: dict[str, Array]) -> Scored:
        states = tuple(values[slot.output] for slot in self.engine.layout.states)
        return Scored(values[self._log_probs], states)


def take(states: States, rows: NDArray[np.intp]) -> States:
    """The given rows of every state."""
    return tuple(array.take(rows, 0) for array in states)
