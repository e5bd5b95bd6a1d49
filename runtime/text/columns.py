"""Texts as people hold them: strings, and columns of strings in lists, NumPy, pandas, polars and Arrow.

NumPy and Arrow also give the bytes of a string, and pandas a number for a missing one, so nothing here goes by way of
arrays; a text that is missing is named by its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rnncore.runtime.errors import InputError

_NUMBERS = "biufcmMV"  # kinds of NumPy's dtypes that are no texts
_MISSING = ("NAType", "NaTType", "NoneType")


def text_of(value: Any) -> str | None:
    """A single text, also one in the shell of NumPy or Arrow; None for anything else."""
    if isinstance(value, str):
        return value[:] if isinstance(value, np.str_) else str(value)  # str() of NumPy's drops NULs at the end
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "UTO":
        value = value.item()
    elif hasattr(value, "as_py"):
        value = value.as_py()
    return str(value) if isinstance(value, str) else None


def texts_of(value: Any, what: str = "text") -> list[str] | None:
    """The texts of a list or column; None if it is empty, or its entries are something else.

    Raises:
        InputError: some of the texts are missing (None, NaN, NA), or bytes; ``what`` and its place name the first.
    """
    items = entries_of(value)
    if not items:
        return None
    texts = [text_of(item) for item in items]
    if all(text is not None for text in texts):
        return [text for text in texts if text is not None]
    if all(text is None for text in texts) and not (is_text_column(value) or all(map(is_gap, items))):
        _refuse_bytes(items, what)
        return None
    for i, (item, text) in enumerate(zip(items, texts, strict=True)):
        if text is None and is_gap(item):
            raise InputError(f"{what} {i} is missing ({item!r}): leave it out, or give it a text")
    _refuse_bytes(items, what)
    return None


def read_texts(value: Any, what: str = "text") -> list[str]:
    """The texts of a list or column of texts, which may be empty; InputError for anything else."""
    if text_of(value) is not None:
        raise InputError("got one text where several are expected: put it in a list")
    if isinstance(value, Iterator):
        value = list(value)
    texts = texts_of(value, what)
    if texts is not None:
        return texts
    items = entries_of(value)
    if items is None:
        raise InputError(f"texts are a {type(value).__name__}, expected a list or column of str")
    wrong = [type(item).__name__ for item in items if text_of(item) is None]
    if wrong:
        raise InputError(f"{what} is a {wrong[0]}, expected a str")
    return []


def entries_of(value: Any) -> list[Any] | None:
    """The entries of a list, or of a column that may hold texts, as Python objects; None if the value is neither."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, Iterator):
        return None
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            return None
        return value.tolist() if value.ndim == 1 and value.dtype.kind not in _NUMBERS else None
    if not is_text_column(value):
        return None
    for name in ("to_pylist", "to_list", "tolist"):
        read = getattr(value, name, None)
        if callable(read):
            found = read()
            return found if isinstance(found, list) else None
    return None


def is_text_column(value: Any) -> bool:
    """Whether a column says that it holds texts, or anything."""
    if isinstance(value, list | tuple):
        return False
    kind = getattr(value, "dtype", getattr(value, "type", None))
    if kind is None or isinstance(value, np.generic):
        return False
    if isinstance(kind, np.dtype):
        return kind.kind not in _NUMBERS
    name = str(kind).lower()
    return any(part in name for part in ("str", "utf8", "object", "categor", "enum", "dictionary", "null", "binary"))


def is_gap(item: Any) -> bool:
    """Whether an entry of a column says that it is missing: None, NA, NaT or NaN."""
    if hasattr(item, "as_py"):
        item = item.as_py()
    return type(item).__name__ in _MISSING or (isinstance(item, float) and item != item)


def _refuse_bytes(items: list[Any], what: str) -> None:
    for i, item in enumerate(items):
        if isinstance(item, bytes | bytearray | memoryview):
            raise InputError(f"{what} {i} is a {type(item).__name__}, expected a text: decode it, x.decode()")
