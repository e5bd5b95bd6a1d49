"""What scikit-learn's users hold as ``X``, as sequences: tables, padded arrays, lists of arrays of any lengths, texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError
from rnncore.runtime.text.columns import texts_of
from rnncore.runtime.text.vocabulary import Vocabulary
from rnncore.text import character_vocabulary, token_vocabulary, word_vocabulary

Kind = Literal["floats", "ids", "texts", "tokens"]
NAMED_VOCABULARIES = ("words", "characters")


@dataclass(frozen=True)
class Inputs:
    """How an estimator reads, as it was fitted.

    kind: "floats": [time, features] each; "ids": token ids [time]; "texts": str; "tokens": lists of str.
    width: features of a step, or the number of ids.
    vocabulary: of texts and tokens.
    """

    kind: Kind
    width: int
    vocabulary: Vocabulary | None = None

    def read(self, rows: Sequence[Any]) -> list[Array]:
        """Float32 [time, features] or int64 [time] for each row; InputError names the first that does not fit."""
        if self.vocabulary is not None:
            if self.kind == "texts":
                return self.vocabulary.encode_many(_texts(rows))
            return [self.vocabulary.encode_tokens(row, where=f"X[{i}]: ") for i, row in enumerate(rows)]
        if self.kind == "ids":
            return [_ids(row, i, self.width) for i, row in enumerate(rows)]
        return [_floats(row, i, self.width) for i, row in enumerate(rows)]


def is_table(X: Any) -> bool:
    """Whether scikit-learn itself shall read ``X``: two axes of numbers, or what it knows how to refuse."""
    if isinstance(X, str | bytes) or X is None or not hasattr(X, "__len__"):
        return True
    shape = getattr(X, "shape", None)
    if shape is None and hasattr(X, "__array__"):
        shape = np.asarray(X).shape
    if shape is not None:
        numbers = getattr(getattr(X, "dtype", None), "kind", "O") in "biufc"
        return len(shape) in (0, 2) or (len(shape) == 1 and numbers) or shape[0] == 0
    return len(X) == 0 or any(np.ndim(row) == 0 and not isinstance(row, str) for row in X if not _ragged(row))


def is_table_of_lists(X: Any) -> bool:
    """Whether ``X`` is a list of lists of numbers, all of one length: a table for scikit-learn."""
    if not isinstance(X, list | tuple) or not all(isinstance(row, list | tuple) for row in X):
        return False
    flat = [value for row in X for value in row]
    return len({len(row) for row in X}) == 1 and all(isinstance(value, int | float | np.number) for value in flat)


def _ragged(row: Any) -> bool:
    """Whether NumPy would refuse to say how many axes a row has."""
    return isinstance(row, list | tuple) and len(row) > 0


def learn_inputs(rows: Sequence[Any], reads: str, vocabulary: str | Vocabulary) -> Inputs:
    """How to read what these rows are like; ``reads`` is "auto" or "ids"."""
    if reads not in ("auto", "ids"):
        raise InputError(f"reads is {reads!r}, expected 'auto' or 'ids'")
    if reads == "ids":
        most = max(
            (int(ids.max()) for ids in (_ids(row, i, None) for i, row in enumerate(rows)) if ids.size), default=0
        )
        return Inputs("ids", most + 1)
    if any(isinstance(row, str) for row in rows):
        texts = _texts(rows)
        words = vocabulary if isinstance(vocabulary, Vocabulary) else _vocabulary_of(texts, vocabulary)
        return Inputs("texts", len(words), words)
    if any(isinstance(token, str) for row in rows for token in row[:1]):
        words = vocabulary if isinstance(vocabulary, Vocabulary) else token_vocabulary(rows)
        return Inputs("tokens", len(words), words)
    width = next((a.shape[1] if a.ndim == 2 else 1 for a in map(np.asarray, rows) if a.ndim in (1, 2) and a.size), 1)
    return Inputs("floats", width)


def _vocabulary_of(texts: list[str], name: str) -> Vocabulary:
    if name not in NAMED_VOCABULARIES:
        raise InputError(
            f"vocabulary is {name!r}, expected {' or '.join(map(repr, NAMED_VOCABULARIES))}, or a Vocabulary"
        )
    return word_vocabulary(texts, lowercase=True) if name == "words" else character_vocabulary(texts)


def _texts(rows: Sequence[Any]) -> list[str]:
    texts = texts_of(list(rows))
    if texts is None:
        wrong = next((i, row) for i, row in enumerate(rows) if not isinstance(row, str))
        raise InputError(f"X[{wrong[0]}] is a {type(wrong[1]).__name__}, expected a text as the others")
    return texts


def _ids(row: Any, place: int, count: int | None) -> Array:
    ids = np.asarray(row)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise InputError(f"X[{place}] is {ids.dtype} {list(ids.shape)}, expected token ids, integers [time]")
    if ids.size and (ids.min() < 0 or (count is not None and ids.max() >= count)):
        raise InputError(f"X[{place}] holds ids from {ids.min()} to {ids.max()}, expected 0 to {(count or 1) - 1}")
    return ids.astype(np.int64)


def _floats(row: Any, place: int, width: int) -> Array:
    try:
        values = np.asarray(row)
        if values.dtype.kind == "c":
            raise InputError(f"Complex data not supported: X[{place}] is {values.dtype}")
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"X[{place}] holds no numbers [time] or [time, features]: {error}") from None
    if values.ndim == 1 and (width == 1 or not values.size):
        values = values.reshape(-1, width)
    if values.ndim != 2 or values.shape[1] != width:
        expected = f"[time, {width}]" + (" or [time]" if width == 1 else "")
        raise InputError(f"X[{place}] is {list(values.shape)}, expected {expected}")
    if not np.isfinite(values).all():
        raise InputError(f"X[{place}] contains NaN or infinity, or a value too large for float32")
    return values
