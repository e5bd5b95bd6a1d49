"""``Classifier``: one label for a sequence, from a model file and without PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.tasks.task import Sequences, TaskRunner
from rnncore.runtime.tasks.task_stream import TaskStream


class Classifier(TaskRunner):
    """A file of ``rnncore.Classifier``; see :class:`rnncore.runtime.tasks.task.TaskRunner` for what it reads.

    ::

        classifier = Classifier.load("sentiment.onnx")
        classifier.classify("a gripping film")      # "positive"
        classifier.probabilities("a gripping film")  # {"negative": 0.1, "positive": 0.9}
    """

    task = "classifier"

    def classify(self, one: Any) -> str:
        """The likeliest label."""
        return self._named(self._run(one))

    def classify_many(self, many: Sequences, lengths: Any = None) -> list[str]:
        """As :meth:`classify` for each of several inputs."""
        return [self._named(log_probs) for log_probs in self._run_many(many, lengths)]

    def probabilities(self, one: Any) -> dict[str, float]:
        """The probability of every label."""
        return self._probabilities(self._run(one))

    def probabilities_many(self, many: Sequences, lengths: Any = None) -> list[dict[str, float]]:
        """As :meth:`probabilities` for each of several inputs."""
        return [self._probabilities(log_probs) for log_probs in self._run_many(many, lengths)]

    def stream(self) -> TaskStream[dict[str, float]]:
        """A stream: every push returns the :meth:`probabilities` given all that was pushed so far.

        Raises:
            NotStreamableError: the model is bidirectional, or pools over time other than by the last step.
        """
        return TaskStream(self.model.stream(), self._read, self._probabilities)

    def _named(self, log_probs: Array) -> str:
        return self.labels[int(np.argmax(log_probs))]

    def _probabilities(self, log_probs: Array) -> dict[str, float]:
        return dict(zip(self.labels, np.exp(log_probs).tolist(), strict=True))
