"""Models over columns: each is called with a batch and returns the batch with its answers as further columns.

::

    ds = ray.data.read_parquet("reviews/")
    ds = ds.map_batches(rnncore.ray.Embed("reviews.onnx", "text"), batch_format="pyarrow")
    ds.write_parquet("vectors/")

A batch is a value and the answer depends on nothing else, so that a block can be done again, by another worker, as often as
it takes: what Ray retries gives what it would have given.  An instance travels to the workers as a path and a fingerprint, and a
worker opens a file once however many blocks it gets; hand in bytes instead of a path where workers do not see the same disk.
"""

from __future__ import annotations

import hashlib
import os
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from rnncore.ray.columns import Column, read_column, with_columns
from rnncore.runtime.errors import InputError, TamperedModelError
from rnncore.runtime.model import Model, load
from rnncore.runtime.tasks.classifier import Classifier
from rnncore.runtime.tasks.embedder import Embedder
from rnncore.runtime.tasks.rater import Rater
from rnncore.runtime.tasks.tagger import Tagger
from rnncore.runtime.text.language_model import LanguageModel

Source = str | os.PathLike[str] | bytes
OnError = Literal["raise", "null"]

_MOST_OPEN = 8
_open_runners: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_lock = threading.Lock()


class ColumnMapper:
    """What every mapper does besides asking its model; use one of the subclasses.

    Args:
        source: path of the file, or its bytes.
        column: name of the column that is read: texts, lists of token ids or of tokens, lists [time, features] of floats,
            tensors.
        into: name of the column that is written; others begin with it.
        on_error: "raise", or "null": a row that the model refuses gets null, and ``<into>_error`` says why.
        options: as for :func:`rnncore.runtime.load`.

    Raises:
        ModelFileError: the file cannot be opened, or is of another task.
    """

    into: ClassVar[str]
    opens: ClassVar[Any]

    def __init__(
        self, source: Source, column: str, *, into: str | None = None, on_error: OnError = "raise", **options: Any
    ) -> None:
        if on_error not in ("raise", "null"):
            raise InputError(f"on_error is {on_error!r}, expected 'raise' or 'null'")
        self._source = source if isinstance(source, bytes) else os.path.abspath(source)
        self._column, self._into, self._on_error = column, into or self.into, on_error
        self._options = options
        self._fingerprint: str | None = None
        self._fingerprint = self.runner_model.fingerprint

    def __call__(self, batch: Any) -> Any:
        """The batch, an Arrow table, pandas or polars frame or dict of NumPy arrays, with the answers as further columns.

        Raises:
            InputError: there is no such column, or with ``on_error="raise"`` a row that the model refuses.
        """
        rows = read_column(batch, self._column)
        if self._on_error == "null":
            return with_columns(batch, self._nulls_for_errors(rows))
        try:
            return with_columns(batch, self.answers(rows))
        except InputError as problem:
            raise type(problem)(f"column {self._column!r}: {problem}") from None

    @abstractmethod
    def answers(self, rows: Sequence[Any]) -> dict[str, Column]:
        """The columns for some rows; InputError if the model refuses one of them."""

    @property
    def runner(self) -> Any:
        """The object of :mod:`rnncore.runtime` that answers, opened once in a process."""
        return _opened(self._source, type(self).opens, self._options, self._fingerprint)

    @property
    def runner_model(self) -> Model:
        """The model inside of :attr:`runner`."""
        model: Model = getattr(self.runner, "model", self.runner)
        return model

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._column!r} -> {self._into!r}>"

    def _nulls_for_errors(self, rows: Sequence[Any]) -> dict[str, Column]:
        """Halves of what is refused, until the rows that are refused stand alone."""
        errors: list[str | None] = [None] * len(rows)
        found: list[dict[str, Any] | None] = [None] * len(rows)
        kinds = {name: column.kind for name, column in self.answers([]).items()}
        waiting = [range(len(rows))] if len(rows) else []
        while waiting:
            places = waiting.pop()
            try:
                columns = self.answers([rows[place] for place in places])
            except InputError as problem:
                if len(places) == 1:
                    errors[places[0]] = str(problem)
                else:
                    middle = len(places) // 2
                    waiting += [places[middle:], places[:middle]]
                continue
            for k, place in enumerate(places):
                found[place] = {name: column.values[k] for name, column in columns.items()}
        told = {
            name: Column(kind, [None if one is None else one[name] for one in found]) for name, kind in kinds.items()
        }
        return {**told, f"{self._into}_error": Column("text", errors)}


class Embed(ColumnMapper):
    """A vector of length 1 for each row, from a file of :class:`rnncore.runtime.Embedder`: fixed-size lists of float32."""

    into = "embedding"
    opens = Embedder

    def answers(self, rows: Sequence[Any]) -> dict[str, Column]:
        """``embedding``: [size] for each row."""
        return {self._into: Column("vector", list(self.runner.embed_many(_present(rows))))}


class Classify(ColumnMapper):
    """The likeliest label of each row and its probability, from a file of :class:`rnncore.runtime.Classifier`."""

    into = "label"
    opens = Classifier

    def answers(self, rows: Sequence[Any]) -> dict[str, Column]:
        """``label`` and ``label_probability``."""
        best = [max(one.items(), key=lambda pair: pair[1]) for one in self.runner.probabilities_many(_present(rows))]
        return {
            self._into: Column("text", [label for label, _ in best]),
            f"{self._into}_probability": Column("float", [probability for _, probability in best]),
        }


class Rate(ColumnMapper):
    """A number for each row, from a file of :class:`rnncore.runtime.Rater`."""

    into = "rating"
    opens = Rater

    def answers(self, rows: Sequence[Any]) -> dict[str, Column]:
        """``rating``."""
        return {self._into: Column("float", self.runner.rate_many(_present(rows)))}


class Tag(ColumnMapper):
    """A label for each step of each row, from a file of :class:`rnncore.runtime.Tagger`."""

    into = "tags"
    opens = Tagger

    def answers(self, rows: Sequence[Any]) -> dict[str, Column]:
        """``tags``: a list of labels for each row."""
        return {self._into: Column("texts", self.runner.tag_many(_present(rows)))}


class Score(ColumnMapper):
    """The natural-log probability of each text, from a file of :class:`rnncore.runtime.LanguageModel`.

    ``log_prob_tokens`` is the number of tokens that it is the sum of: perplexity is ``exp(-log_prob / log_prob_tokens)``, and
    that of a corpus ``exp(-sum / sum)``.

    Args:
        eos: score the end of each text too; otherwise a text is the beginning of one.
        source, column, into, on_error, options: as for :class:`ColumnMapper`.
    """

    into = "log_prob"
    opens = LanguageModel

    def __init__(
        self,
        source: Source,
        column: str,
        *,
        eos: bool = True,
        into: str | None = None,
        on_error: OnError = "raise",
        **options: Any,
    ) -> None:
        self._eos = eos
        super().__init__(source, column, into=into, on_error=on_error, **options)

    def answers(self, rows: Sequence[Any]) -> dict[str, Column]:
        """``log_prob`` and ``log_prob_tokens``."""
        texts = _present(rows)
        ids = [text if isinstance(text, np.ndarray) else None for text in texts]
        read = iter(self.runner.vocabulary.encode_many([t for t, one in zip(texts, ids, strict=True) if one is None]))
        encoded = [next(read) if one is None else one for one in ids]
        return {
            self._into: Column("float", self.runner.rescore(encoded, eos=self._eos)),
            f"{self._into}_tokens": Column("int", [len(one) + self._eos for one in encoded]),
        }


class Run(ColumnMapper):
    """What any model of one input and one output answers to each row, as lists."""

    into = "output"

    @staticmethod
    def opens(model: Model) -> Model:
        """The model as it is; InputError if it has several inputs or outputs."""
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise InputError(
                f"the model has the inputs {', '.join(model.inputs)} and the outputs {', '.join(model.outputs)}, expected one "
                "of each: call model.run in a function of your own"
            )
        return model

    def answers(self, rows: Sequence[Any]) -> dict[str, Column]:
        """``output``."""
        return {self._into: Column("array", list(self.runner.run(_present(rows))) if rows else [])}


def _present(rows: Sequence[Any]) -> list[Any]:
    for place, row in enumerate(rows):
        if row is None:
            raise InputError(f"row {place} is missing (null): leave it out, or pass on_error='null'")
    return list(rows)


def _opened(
    source: str | bytes, opens: Callable[[Model], Any], options: dict[str, Any], fingerprint: str | None
) -> Any:
    """The runner of a file, opened once in this process; ``fingerprint`` is that of the file which it has to be."""
    place = hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else source
    key = (place, opens, repr(sorted(options.items())), fingerprint)
    with _lock:
        runner = _open_runners.get(key)
        if runner is None:
            model = load(source, **options)
            if fingerprint not in (None, model.fingerprint):
                raise TamperedModelError(
                    f"{place}: the file has changed since the mapper was made (fingerprint {model.fingerprint[:12]}… instead "
                    f"of {str(fingerprint)[:12]}…): give a new model a new name"
                )
            runner = opens(model)
            if fingerprint is None:  # a first look: the file may be another one the next time
                return runner
            _open_runners[key] = runner
        _open_runners.move_to_end(key)
        while len(_open_runners) > _MOST_OPEN:
            _open_runners.popitem(last=False)
        return runner
