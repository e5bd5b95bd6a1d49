"""What people hold their numbers in, as NumPy arrays: tensors of other libraries, columns of tables, buffers, nested lists.

The libraries are never imported: a value says by its own methods what it is.  Whatever NumPy would misread (gaps, texts,
objects) is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.errors import InputError
from rnncore.runtime.interrupts import from_signal_handler

_PLAIN = frozenset({int, float, bool, complex, np.ndarray}) | frozenset(np.sctypeDict.values())
_NO_ARRAYS = (str, bytes, bytearray, Mapping, set, frozenset, Iterator)
_OWN_WAYS = ("__array__", "__dlpack__", "as_py", "to_pylist")
_HALF_NAMES = ("bfloat16", "float8")


def as_array(value: Any) -> NDArray[Any]:
    """``value`` as an array of its own dtype: numbers, or what the caller's check of dtypes refuses by name.

    Tensors are taken from their device, without their gradient; bfloat16, of which NumPy has none, becomes float32.

    Raises:
        InputError: the value holds no numbers, or has gaps (masked, null, NA); the message begins with "is a" or the like.
    """
    if type(value) is np.ndarray and value.dtype.kind != "O":
        return value
    if value is None or isinstance(value, _NO_ARRAYS):
        hint = ": make it a list first" if isinstance(value, Iterator) else ""
        raise InputError(f"is a {type(value).__name__}, expected an array{hint}")
    if isinstance(value, np.ma.MaskedArray):
        raise InputError("is a masked array, and what is masked has no meaning here: fill it in, x.filled(...)")
    if isinstance(value, list | tuple):
        return _of_list(value)
    if hasattr(value, "as_py"):  # a scalar of Arrow, which may be a list
        return as_array(value.as_py())
    _refuse_gaps(value)
    array = _of_tensor(value) if hasattr(value, "requires_grad") else _of_other(value)
    if array.dtype.kind == "O":
        return _of_objects(array, type(value).__name__)
    return array.astype(np.float32) if array.dtype.name.startswith(_HALF_NAMES) else array


def numbers_of(value: Any, name: str) -> NDArray[np.float64]:
    """``value`` as float64, whatever holds it; InputError, which begins with ``name``, where it holds no real numbers."""
    try:
        array = as_array(value)
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    except Exception as error:  # the conversion is whatever the caller's type does
        if from_signal_handler(error):
            raise
        raise InputError(f"{name} cannot be made an array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {array.dtype}, expected real numbers")
    return array.astype(np.float64, copy=False)


def rows_of(value: Any) -> list[Any] | None:
    """The rows of a column of sequences, such as a column of lists in Arrow or pandas; None if it is none."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return None
    items = _items(value)
    if not items or len(getattr(value, "shape", (len(items),))) != 1:
        return None
    return items if all(hasattr(item, "__len__") and not isinstance(item, str | bytes) for item in items) else None


def _items(value: Any) -> list[Any] | None:
    """The entries of a column as Python objects; None if the value is no column."""
    for name in ("to_pylist", "to_list", "tolist"):
        read = getattr(value, name, None)
        if callable(read) and not hasattr(value, "requires_grad"):
            found = read()
            return found if isinstance(found, list) else None
    return None


def _of_list(value: list[Any] | tuple[Any, ...]) -> NDArray[Any]:
    if _is_plain(value):
        return _checked(np.asarray(value), "list")
    items = list(map(_python_number, value))
    return _checked(np.asarray([item if _is_plain((item,)) else as_array(item) for item in items]), "list")


def _is_plain(value: list[Any] | tuple[Any, ...]) -> bool:
    """Whether NumPy reads these nested lists as they are: nothing in them has a way of its own to be an array."""
    kinds = set(map(type, value)) - _PLAIN
    if any(issubclass(kind, np.ma.MaskedArray) or any(hasattr(kind, name) for name in _OWN_WAYS) for kind in kinds):
        return False
    nested = kinds & {list, tuple}
    return not nested or all(_is_plain(item) for item in value if type(item) in nested)


def _python_number(item: Any) -> Any:
    """An Arrow scalar is a number in a shell, and a null one is a gap."""
    return item.as_py() if hasattr(item, "as_py") else item


def _refuse_gaps(value: Any) -> None:
    """Raise InputError if a column says that it lacks values; as floats they would be NaN, which is a value."""
    nulls = getattr(value, "null_count", 0)  # Arrow: a number; polars: a method, of a table by column
    nulls = nulls() if callable(nulls) else nulls
    count = int(np.sum(np.asarray(nulls)))
    columns = getattr(value, "columns", None)
    if isinstance(columns, list):  # a table of Arrow
        count += sum(getattr(column, "null_count", 0) for column in columns)
    if hasattr(value, "isna"):  # pandas: in NumPy's own types there is no gap, but NaN
        kinds = value.dtypes if hasattr(value, "columns") else [getattr(value, "dtype", None)]
        if not all(isinstance(kind, np.dtype) for kind in kinds):
            count += int(np.sum(np.asarray(value.isna())))
    if count:
        raise InputError(f"is a {type(value).__name__} that lacks {count} values: fill them in or leave their rows out")


def _of_tensor(value: Any) -> NDArray[Any]:
    """A tensor of PyTorch, on any device."""
    if getattr(value, "is_sparse", False) or getattr(value, "is_quantized", False):
        raise InputError(f"is a sparse or quantized {type(value).__name__}: use .to_dense() or .dequantize()")
    plain = value.detach().cpu()
    if str(plain.dtype).removeprefix("torch.").startswith(_HALF_NAMES):
        plain = plain.float()
    array: NDArray[Any] = plain.resolve_conj().resolve_neg().numpy()
    return array


def _of_other(value: Any) -> NDArray[Any]:
    known = any(hasattr(value, name) for name in ("__array__", "__array_interface__", "__array_struct__"))
    if not known and hasattr(value, "__dlpack__"):
        device = getattr(value, "__dlpack_device__", lambda: (1, 0))()
        if int(device[0]) != 1:
            raise InputError(f"is a {type(value).__name__} in the memory of a device: move it to the processor first")
        return np.from_dlpack(value)
    array = np.asarray(value)
    if array.ndim == 0 and array.dtype.kind == "O":
        raise InputError(f"is a {type(value).__name__}, of which NumPy makes no array")
    return array


def _of_objects(array: NDArray[Any], holder: str) -> NDArray[Any]:
    """Numbers that are held as Python objects, as a column of mixed origin does."""
    items = [_python_number(item) for item in array.ravel().tolist()]
    if all(hasattr(item, "__len__") and not isinstance(item, str) for item in items) and items and array.ndim == 1:
        return as_array(items)
    if items and not set(map(type, items)) <= _PLAIN - {np.ndarray}:
        return _checked(array, holder)
    return np.asarray(items).reshape(array.shape)


def _checked(array: NDArray[Any], holder: str) -> NDArray[Any]:
    """``array``, unless it holds objects: which one, and where, is told."""
    if array.dtype.kind != "O":
        return array
    for at, item in np.ndenumerate(array):
        if type(item) not in _PLAIN or isinstance(item, np.ndarray):
            place = ", ".join(map(str, at))
            gap = item is None or type(item).__name__ in ("NAType", "NaTType")
            what = "nothing" if gap else f"a {type(item).__name__}"
            raise InputError(f"is a {holder} that holds {what} at [{place}], expected numbers")
    raise InputError(f"is a {holder} of numbers that have no common type, such as integers beyond 64 bits")
