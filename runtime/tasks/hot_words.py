"""Words that are worth more than the frames say: names, products, commands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import is_number
from rnncore.runtime.errors import InputError, raise_all


class HotWords:
    """Adds a bonus for every label of a hot word, and takes it back where the word is not finished.

    A :class:`rnncore.runtime.tasks.prefix_beam.LabelScorer`: an automaton over all words at once (Aho & Corasick 1975).  Where
    " " is a label, a word counts only at the beginning of a word.

    Args:
        words: each with its bonus for a label, natural logarithm; 1 to 3 is usual.
        labels: of the recogniser, in order; single characters.

    Raises:
        InputError: lists the words that are empty or have characters that are no labels, and bonuses out of range.
    """

    def __init__(self, words: Mapping[str, float], labels: Sequence[str]) -> None:
        if not isinstance(words, Mapping):
            raise InputError(f"hot_words is a {type(words).__name__}, expected a dict from word to bonus")
        numbers = {label: i for i, label in enumerate(labels)}
        problems = [
            f"the bonus of {word!r} is {bonus!r}, expected a finite number"
            for word, bonus in words.items()
            if not (is_number(bonus) and math.isfinite(bonus))
        ]
        problems += [
            f"{word!r} has {sorted(set(word) - numbers.keys())}, which the recogniser never says"
            for word in words
            if set(word) - numbers.keys()
        ]
        raise_all([*problems, *(["a hot word is empty"] if "" in words else [])])
        border = (numbers[" "],) if " " in numbers else ()
        self._build(
            {(*border, *(numbers[c] for c in word)): bonus for word, bonus in words.items()}, len(labels), border
        )

    def _build(self, words: Mapping[tuple[int, ...], float], labels: int, border: tuple[int, ...]) -> None:
        """Nodes are beginnings of words; what a beginning is owed back if no word comes of it is 0 at the end of a word."""
        nodes: dict[tuple[int, ...], int] = {(): 0}
        bonus: dict[tuple[int, ...], float] = {}
        for word, own in words.items():
            for end in range(1, len(word) + 1):
                nodes.setdefault(word[:end], len(nodes))
                worth = own if end > len(border) else 0.0
                bonus[word[:end]] = max(bonus.get(word[:end], -math.inf), worth)
        self._steps = np.zeros((len(nodes), labels), np.int64)
        self._gains = np.zeros((len(nodes), labels))
        self._owed = np.zeros(len(nodes))
        for path, node in sorted(nodes.items(), key=lambda item: len(item[0])):
            for label in range(labels):
                longer = (*path, label)
                if longer in nodes:
                    target = nodes[longer]
                    self._gains[node, label] = bonus[longer]
                    self._owed[target] = 0.0 if longer in words else self._owed[node] + bonus[longer]
                else:
                    target = next(
                        nodes[longer[start:]] for start in range(1, len(longer) + 1) if longer[start:] in nodes
                    )
                    self._gains[node, label] = self._owed[target] - self._owed[node]
                self._steps[node, label] = target
        self._start = nodes.get(border, 0)

    def start(self) -> tuple[Any, Array]:
        """See :class:`rnncore.runtime.tasks.prefix_beam.LabelScorer`."""
        state = np.array([self._start])
        return state, self._gains[state]

    def advance(self, state: Any, rows: Array, labels: Array) -> tuple[Any, Array]:
        """See :class:`rnncore.runtime.tasks.prefix_beam.LabelScorer`."""
        before = state[rows]
        after = np.where(labels >= 0, self._steps[before, labels], before)
        return after, self._gains[after]

    def end(self, state: Any) -> Array:
        """See :class:`rnncore.runtime.tasks.prefix_beam.LabelScorer`: takes back what an unfinished word has got."""
        return np.asarray(-self._owed[state])
