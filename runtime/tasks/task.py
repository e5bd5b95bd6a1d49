"""What the classes for one task have in common: the file is of that task, and input is read as the model wants it.

====================== ==================================================================================
key of the file        value
====================== ==================================================================================
rnncore.task           "tagger", "classifier", "rater", "embedder", "generator" or "recogniser"
rnncore.labels         JSON list of strings; the i-th names number i of the answers
rnncore.eos            generators: the token that begins and ends a sequence
rnncore.bounds         raters: JSON list of two numbers that every rating lies between
rnncore.tokenizer      the JSON of a tokenizer, where the input can be text
====================== ==================================================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, ModelFileError, raise_all
from rnncore.runtime.format.signature import BATCH, TIME, TensorSpec
from rnncore.runtime.model import Model, load
from rnncore.runtime.tasks.claims import probe, refuse
from rnncore.runtime.tensors.array_likes import as_array, rows_of
from rnncore.runtime.text.columns import text_of, texts_of
from rnncore.runtime.text.log_probs import log_probability_problem
from rnncore.runtime.text.vocabulary import Vocabulary

TASK_KEY = "rnncore.task"
LABELS_KEY = "rnncore.labels"
EOS_KEY = "rnncore.eos"
BOUNDS_KEY = "rnncore.bounds"
TOKENIZER_KEY = "rnncore.tokenizer"

Sequences = Sequence[Any] | Array
"""Several inputs: a list of what a single call takes, or a padded array."""


class TaskRunner:
    """A model file of one task; immutable and shared like the :class:`rnncore.runtime.Model` inside.

    One input is

    * a text or a list of tokens, for a model of token ids whose file has a tokenizer (needs ``rnncore[text]``); classes
      that give one answer for a whole text (:class:`SequenceRunner`) take such a list as several texts,
    * token ids, integers [time], for any model of token ids,
    * floats [time, features], for a model of floats.

    Several inputs are a list of such, of any lengths, or a padded array [batch, time, ...] with ``lengths`` [batch].  Lists
    may be columns of NumPy, pandas, polars or Arrow, arrays may be tensors of other libraries; what is missing in a column is
    refused by its place.
    The answer to each is the same alone and among others.

    Raises:
        ModelFileError: the file is of another task, or its input, its output or the numbers that it answers (log-probabilities
            that do not sum to one, say) are not those of the task.
    """

    task: ClassVar[str]
    output: ClassVar[tuple[str, ...]] = (BATCH,)
    """Axes of the model's one output, the last one of features left out."""

    def __init__(self, model: Model) -> None:
        self.model = model
        found = model.metadata.get(TASK_KEY)
        if found != self.task:
            of = "of no task" if found is None else f"for the task {found!r}"
            raise ModelFileError(
                f"the file is {of}, expected {self.task!r}: export it with rnncore.export.export_model, or use "
                "rnncore.runtime.load for any model"
            )
        self.labels = _labels(model)
        self._check_ports()
        answer = probe(model)
        if answer is not None:
            refuse(self.task, self._problem_of(answer))

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes, **options: Any) -> Self:
        """Load a file of ``rnncore.export.export_model``; options and errors as for ``rnncore.runtime.load``."""
        return cls(load(source, **options))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens of a model that reads text; InputError if the file has no tokenizer."""
        text = self.model.metadata.get(TOKENIZER_KEY)
        if text is None:
            wants = "token ids" if self._reads_ids else f"floats {list(self._input.shape[1:])}"
            raise InputError(f"the file has no tokenizer, so it reads no text: hand in {wants}")
        return Vocabulary.from_json(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model!r}>"

    @property
    def _input(self) -> TensorSpec:
        return self.model.signature.inputs[0]

    @property
    def _reads_ids(self) -> bool:
        return self._input.dtype == "int64"

    def _outputs_expected(self) -> int | None:
        """Features of the output, None for any number."""
        return len(self.labels)

    def _inputs_expected(self) -> int:
        return 1

    def _problem_of(self, answer: Array) -> str:
        """Why the numbers of an answer are not those of the task; empty if they are."""
        return log_probability_problem(answer)

    def _check_ports(self) -> None:
        signature = self.model.signature
        problems = []
        if len(signature.inputs) != self._inputs_expected():
            problems.append(f"{len(signature.inputs)} inputs, expected {self._inputs_expected()}")
        if signature.inputs and (
            self._input.shape[:2] != (BATCH, TIME) or len(self._input.shape) != (2 if self._reads_ids else 3)
        ):
            problems.append(f"input '{self._input.name}' is {list(self._input.shape)}, expected [batch, time, ...]")
        shapes = [port.shape for port in signature.outputs]
        features = self._outputs_expected()
        last = len(self.output) + (features != 0)
        if len(shapes) != 1 or shapes[0][: len(self.output)] != self.output or len(shapes[0]) != last:
            problems.append(
                f"outputs are {[list(shape) for shape in shapes]}, expected one {list(self.output)} + features"
            )
        elif features and shapes[0][-1] != features:
            problems.append(f"the output has {shapes[0][-1]} features, expected {features}")
        raise_all(problems, ModelFileError, title=f"the file says that it is a {self.task}, but it is not")

    def _read(self, one: Any, where: str = "") -> Any:
        """Ids or floats of one input; ``where`` is put in front of messages."""
        text = text_of(one)
        if text is not None:
            return self._tokenized([text])[0]
        tokens = texts_of(one, f"{where}token")
        return one if tokens is None else self._ids_of_tokens(tokens, where)

    def _inputs(self, one: Any, where: str = "") -> tuple[Any, ...]:
        """What the model reads of one input: one array, unless the task says otherwise."""
        return (self._read(one, where),)

    def _run(self, one: Any) -> Array:
        """The output for one input, without the batch axis."""
        return np.asarray(self.model.run(*([array] for array in self._inputs(one)))[0])

    def _run_many(self, many: Sequences, lengths: Any = None) -> Sequence[Array]:
        """The output for each of several inputs, without the batch axis."""
        if text_of(many) is not None:
            raise InputError("got one text where several inputs are expected: put it in a list")
        rows = self._rows(many)
        if rows is None:
            outputs = self.model.run(many, lengths=lengths)
            if lengths is None or self.model.signature.outputs[0].time_axis is None:
                return list(outputs)
            return [row[:length] for row, length in zip(outputs, as_array(lengths).tolist(), strict=True)]
        if lengths is not None:
            raise InputError("lengths go with a padded array only: each item of a list brings its own length")
        if not rows:
            return []
        texts = [text_of(one) for one in rows]
        tokenized = iter(self._tokenized([text for text in texts if text is not None]))
        read = [
            self._read(one, f"item {i}: ") if text is None else next(tokenized)
            for i, (one, text) in enumerate(zip(rows, texts, strict=True))
        ]
        return list(self.model.run(read))

    def _rows(self, many: Any) -> list[Any] | None:
        """Several inputs one by one; None for a padded array."""
        if isinstance(many, Iterator):
            return list(many)
        texts = texts_of(many)
        return rows_of(many) if texts is None else list(texts)

    def _tokenized(self, texts: list[str]) -> list[Array]:
        return list(self.vocabulary.encode_many(texts)) if texts else []

    def _ids_of_tokens(self, tokens: Sequence[str], where: str = "") -> Array:
        """One id for each token, see :meth:`rnncore.runtime.text.vocabulary.Vocabulary.encode_tokens`."""
        return self.vocabulary.encode_tokens(tokens, where=where)


class SequenceRunner(TaskRunner):
    """A task with one answer for a whole text: a flat list or column of texts is several inputs, each with its own answer.

    Whether an entry would be a single token of the vocabulary makes no difference.  Tokens of one text go in as one item of
    a list, ``[["41", "Main", "St"]]``, or as ids.
    """

    def _several(self, value: Any) -> list[str] | None:
        """The texts of a flat list or column; None if ``value`` is one input."""
        return texts_of(value)


def _labels(model: Model) -> tuple[str, ...]:
    text = model.metadata.get(LABELS_KEY, "[]")
    try:
        labels = json.loads(text)
    except ValueError:
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ModelFileError(f"{LABELS_KEY} in the file is {text[:40]!r}, expected a JSON list of strings")
    return tuple(labels)
