"""``Tagger``: a label for every step of a sequence, from a model file and without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.tasks.claims import best_tagging_problem
from rnncore.runtime.tasks.spans import Span, spans_of
from rnncore.runtime.tasks.task import Sequences, TaskRunner
from rnncore.runtime.tasks.task_stream import TaskStream
from rnncore.runtime.text.affixes import Affixes
from rnncore.runtime.text.columns import text_of, texts_of

AFFIXES_KEY = "rnncore.affixes"

SCORES = "scores"
"""Name of the output of a file whose tags are chosen together."""


class Tagger(TaskRunner):
    """A file of ``rnncore.Tagger``; see :class:`rnncore.runtime.tasks.task.TaskRunner` for what it reads.

    ::

        tagger = Tagger.load("addresses.onnx")
        tagger.tag("12 Main St")                    # ["AddressNumber", "StreetName", "StreetNamePostType"]
        tagger.tag_many([["12", "Main", "St"], ["PO", "Box", "7"]])
    """

    task = "tagger"
    output = (BATCH, TIME)

    def tag(self, one: Any) -> list[str]:
        """The likeliest label of every step; of a text, of every token."""
        return self._named(self._run(one))

    def tag_many(self, many: Sequences, lengths: Any = None) -> list[list[str]]:
        """As :meth:`tag` for each of several inputs."""
        return [self._named(log_probs) for log_probs in self._run_many(many, lengths)]

    def spans(self, one: Any) -> list[Span]:
        """What the labels of :meth:`tag` mark, see :mod:`rnncore.runtime.tasks.spans`."""
        return spans_of(self.tag(one))

    def log_probs(self, one: Any) -> Array:
        """Natural-log probability of every label at every step, [time, labels].

        Raises:
            InputError: the file chooses the tags together (a CRF): it has :meth:`scores` of them.
        """
        if self._together:
            raise InputError(
                "this file chooses the tags of a sequence together: it gives scores(), no log_probs() of each"
            )
        return self._run(one)

    def scores(self, one: Any) -> Array:
        """What the tags are chosen by at every step, [time, labels]: the largest is taken.

        Of a file with a CRF: 0 for the label taken, and for any other the natural-log probability of the likeliest tagging
        that has it there, less that of the likeliest of all (at least -50).  Else :meth:`log_probs`.
        """
        return self._run(one)

    def stream(self) -> TaskStream[list[str]]:
        """A stream: every push returns the labels of its own steps.

        Raises:
            NotStreamableError: the model is bidirectional, or chooses the tags of a sequence together (a CRF).
        """
        return TaskStream(self.model.stream(), self._inputs, self._named)

    @property
    def _together(self) -> bool:
        return self.model.signature.outputs[0].name == SCORES

    def _problem_of(self, answer: Array) -> str:
        return best_tagging_problem(answer) if self._together else super()._problem_of(answer)

    @cached_property
    def _affixes(self) -> Affixes | None:
        """The letters of words that the file reads beside them, if it does."""
        text = self.model.metadata.get(AFFIXES_KEY)
        return None if text is None else Affixes.from_json(text)

    def _inputs_expected(self) -> int:
        return 1 if self._affixes is None else 2

    def _inputs(self, one: Any, where: str = "") -> tuple[Any, ...]:
        if self._affixes is None:
            return super()._inputs(one, where)
        words = texts_of(one, f"{where}token")
        text = text_of(one)
        if text is not None:
            words = self._words(text)
        if words is None and len(one):
            raise InputError(
                f"{where}got a {type(one).__name__}: this file reads the letters of words, hand in texts or words"
            )
        return self._ids_of_tokens(words, where) if words else np.zeros(0, np.int64), self._affixes.ids(words or [])

    def _words(self, text: str) -> list[str]:
        """What stands between blanks, if each is a token, else what each token stands for."""
        words = text.split()
        if all(len(ids) == 1 for ids in self.vocabulary.encode_many(words)):
            return words
        return [piece.strip() for piece in self.vocabulary.pieces(text)]

    def _run_many(self, many: Sequences, lengths: Any = None) -> Sequence[Array]:
        if self._affixes is None:
            return super()._run_many(many, lengths)
        if text_of(many) is not None or lengths is not None or (hasattr(many, "ndim") and many.ndim > 1):
            raise InputError("this file reads the letters of words: hand in a list of texts, or of lists of words")
        rows = [self._inputs(one, f"item {i}: ") for i, one in enumerate(many)]
        return list(self.model.run(*map(list, zip(*rows, strict=True)))) if rows else []

    def _named(self, log_probs: Array) -> list[str]:
        return [self.labels[i] for i in np.argmax(log_probs, -1).tolist()]
