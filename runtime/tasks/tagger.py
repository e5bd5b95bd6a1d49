"""``Tagger``: a label for every step of a sequence, from a model file and without PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.tasks.spans import Span, spans_of
from rnncore.runtime.tasks.task import Sequences, TaskRunner
from rnncore.runtime.tasks.task_stream import TaskStream


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
        """Natural-log probability of every label at every step, [time, labels]."""
        return self._run(one)

    def stream(self) -> TaskStream[list[str]]:
        """A stream: every push returns the labels of its own steps; NotStreamableError for a bidirectional model."""
        return TaskStream(self.model.stream(), self._read, self._named)

    def _named(self, log_probs: Array) -> list[str]:
        return [self.labels[i] for i in np.argmax(log_probs, -1).tolist()]
