"""``Rater``: one number for a sequence, from a model file and without PyTorch."""

from __future__ import annotations

import json
from typing import Any, overload

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.tasks.claims import bounds_problem
from rnncore.runtime.tasks.task import BOUNDS_KEY, SequenceRunner, Sequences
from rnncore.runtime.tasks.task_stream import TaskStream


class Rater(SequenceRunner):
    """A file of ``rnncore.Rater``; see :class:`rnncore.runtime.tasks.task.TaskRunner` for what it reads."""

    task = "rater"

    @overload
    def rate(self, one: str) -> float: ...
    @overload
    def rate(self, one: Any) -> Any: ...
    def rate(self, one: Any) -> Any:
        """The rating, a float; of a list or column of texts a list of them."""
        texts = self._several(one)
        return float(self._run(one)) if texts is None else self.rate_many(texts)

    def rate_many(self, many: Sequences, lengths: Any = None) -> list[float]:
        """As :meth:`rate` for each of several inputs."""
        return [float(rating) for rating in self._run_many(many, lengths)]

    def stream(self) -> TaskStream[float]:
        """A stream: every push returns the rating of all that was pushed so far; NotStreamableError as for classifiers."""
        return TaskStream(self.model.stream(), self._inputs, _number)

    @property
    def bounds(self) -> tuple[float, float]:
        """What every rating lies between; -inf and inf for a file that does not say it, as those of before did not."""
        text = self.model.metadata.get(BOUNDS_KEY)
        if text is None:
            return -np.inf, np.inf
        try:
            low, high = (float(value) for value in json.loads(text))
        except (ValueError, TypeError, OverflowError):
            low = high = np.nan
        if not low < high:
            raise ModelFileError(
                f"{BOUNDS_KEY} in the file is {text[:40]!r}, expected two numbers, the lower one first"
            )
        return low, high

    def _problem_of(self, answer: Array) -> str:
        return bounds_problem(answer, self.bounds)

    def _outputs_expected(self) -> int:
        return 0


def _number(rating: Array) -> float:
    return float(rating)
