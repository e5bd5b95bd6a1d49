"""Columns of batches as Ray Data, Spark and others hand them out: Arrow tables, pandas and polars frames, dicts of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncore.runtime.errors import InputError
from rnncore.runtime.text.columns import is_gap


@dataclass(frozen=True)
class Column:
    """What a model says about each row, None where it says nothing.

    kind: "text", "float" or "int" for one value a row; "texts" for a list of texts; "vector" for [size] floats, the same
    size for all rows; "array" for an array of any shape.
    """

    kind: str
    values: Sequence[Any]


def read_column(batch: Any, name: str) -> list[Any]:
    """The rows of one column: texts, arrays, lists of texts, or None where one is missing.

    Raises:
        InputError: there is no such column, or the batch is of no known kind.
    """
    if _is_polars(batch):
        batch = batch.to_arrow()
    if isinstance(batch, Mapping):
        names, column = list(batch), batch.get(name)
    elif hasattr(batch, "column_names"):
        names = list(batch.column_names)
        column = batch.column(name) if name in names else None
    elif hasattr(batch, "columns") and hasattr(batch, "assign"):
        names = [str(one) for one in batch.columns]
        column = batch[name] if name in names else None
    else:
        raise InputError(
            f"the batch is a {type(batch).__name__}, expected an Arrow table, a pandas or polars frame or a dict of NumPy arrays"
        )
    if column is None:
        raise InputError(f"there is no column {name!r}; the batch has {', '.join(map(repr, names)) or 'none'}")
    return _rows(column)


def with_columns(batch: Any, columns: Mapping[str, Column]) -> Any:
    """A batch of the same kind with these columns, in place of any of the same names."""
    if _is_polars(batch):
        import polars

        return polars.from_arrow(with_columns(batch.to_arrow(), columns))
    if isinstance(batch, Mapping):
        return {**batch, **{name: _as_numpy(column) for name, column in columns.items()}}
    if hasattr(batch, "assign"):
        return batch.assign(**{name: list(column.values) for name, column in columns.items()})
    import pyarrow

    for name, column in columns.items():
        array = _as_arrow(pyarrow, column)
        place = batch.column_names.index(name) if name in batch.column_names else None
        batch = batch.append_column(name, array) if place is None else batch.set_column(place, name, array)
    return batch


def _is_polars(batch: Any) -> bool:
    return hasattr(batch, "to_arrow") and hasattr(batch, "get_columns")


def _rows(column: Any) -> list[Any]:
    if hasattr(column, "combine_chunks"):  # Arrow
        kind = str(column.type)
        # Tensors are an extension type, whose rows as Python objects would be bare lists.
        if "extension" in kind or "Tensor" in kind:
            return list(column.to_numpy(zero_copy_only=False))
        return [_array_or_as_is(row) for row in column.to_pylist()]
    if isinstance(column, np.ndarray):
        return [_array_or_as_is(row) for row in column] if column.dtype == object else list(column)
    return [None if is_gap(row) else _array_or_as_is(row) for row in column]


def _array_or_as_is(row: Any) -> Any:
    """A list of numbers, or of lists of them, as an array; texts, lists of texts and arrays as they are."""
    if isinstance(row, np.ndarray) and row.dtype == object:
        row = [_array_or_as_is(one) for one in row]
    if not isinstance(row, list) or not row or isinstance(row[0], str) or row[0] is None:
        return row
    try:
        return np.asarray(row)
    except ValueError:  # steps of different widths: the model says what is wrong
        return row


def _as_numpy(column: Column) -> np.ndarray:
    values = column.values
    if column.kind in ("float", "int", "vector") and all(value is not None for value in values):
        dtype = np.int64 if column.kind == "int" else np.float64 if column.kind == "float" else np.float32
        return np.array(values, dtype) if len(values) else np.zeros(0, dtype)
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = value
    return array


def _as_arrow(pyarrow: Any, column: Column) -> Any:
    values = column.values
    if column.kind == "vector":
        size = next((len(value) for value in values if value is not None), 0)
        return pyarrow.array(list(values), pyarrow.list_(pyarrow.float32(), size) if size else pyarrow.null())
    if column.kind == "array":
        return pyarrow.array([None if value is None else np.asarray(value).tolist() for value in values])
    kinds = {
        "text": pyarrow.string(),
        "float": pyarrow.float64(),
        "int": pyarrow.int64(),
        "texts": pyarrow.list_(pyarrow.string()),
    }
    return pyarrow.array(list(values), kinds[column.kind])
