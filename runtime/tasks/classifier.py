"""``Classifier``: one label for a sequence, from a model file and without PyTorch."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.tasks.task import SequenceRunner, Sequences
from rnncore.runtime.tasks.task_stream import TaskStream


class Probabilities(dict[str, float]):
    """Probability by label, in the order of the model's labels.

    As an array it is [labels], so that ``np.asarray`` of a list of them is [inputs, labels].
    """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(list(self.values()), dtype or np.float64)


class Classifier(SequenceRunner):
    """A file of ``rnncore.Classifier``; see :class:`rnncore.runtime.tasks.task.TaskRunner` for what it reads.

    ::

        classifier = Classifier.load("sentiment.onnx")
        classifier.classify("a gripping film")      # "positive"
        classifier.probabilities("a gripping film")  # {"negative": 0.1, "positive": 0.9}
    """

    task = "classifier"

    @overload
    def classify(self, one: str) -> str: ...
    @overload
    def classify(self, one: Any) -> Any: ...
    def classify(self, one: Any) -> Any:
        """The likeliest label, a str; of a list or column of texts a list of them."""
        texts = self._several(one)
        return self._named(self._run(one)) if texts is None else self.classify_many(texts)

    def classify_many(self, many: Sequences, lengths: Any = None) -> list[str]:
        """As :meth:`classify` for each of several inputs."""
        return [self._named(log_probs) for log_probs in self._run_many(many, lengths)]

    @overload
    def probabilities(self, one: str) -> Probabilities: ...
    @overload
    def probabilities(self, one: Any) -> Any: ...
    def probabilities(self, one: Any) -> Any:
        """The probability of every label, :class:`Probabilities`; of a list or column of texts a list of them."""
        texts = self._several(one)
        return self._probabilities(self._run(one)) if texts is None else self.probabilities_many(texts)

    def probabilities_many(self, many: Sequences, lengths: Any = None) -> list[Probabilities]:
        """As :meth:`probabilities` for each of several inputs."""
        return [self._probabilities(log_probs) for log_probs in self._run_many(many, lengths)]

    def stream(self) -> TaskStream[Probabilities]:
        """A stream: every push returns the :meth:`probabilities` given all that was pushed so far.

        Raises:
            NotStreamableError: the model is bidirectional, or pools over time other than by the last step.
        """
        return TaskStream(self.model.stream(), self._inputs, self._probabilities)

    def _named(self, log_probs: Array) -> str:
        return self.labels[int(np.argmax(log_probs))]

    def _probabilities(self, log_probs: Array) -> Probabilities:
        return Probabilities(zip(self.labels, np.exp(log_probs).tolist(), strict=True))
