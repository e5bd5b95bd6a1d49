"""The lengths of padded sequences, checked row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.tensors.array_likes import as_array

_ROWS_LISTED = 5


def read_lengths(lengths: Any, batch: int, steps: int) -> NDArray[np.int64]:
    """``lengths`` as int64 [batch].

    Raises InputError when they are no integers (NaN included), not one a row, or not in 0..steps; it names the rows.
    """
    try:
        array = as_array(lengths)
    except InputError as error:
        raise InputError(f"lengths: {error}") from None
    except ValueError as error:
        raise InputError(f"lengths cannot be made an array: {error}") from None
    if array.dtype.kind not in "iu":
        shown = f" ({array.flat[0]!s} in row 0)" if array.size else ""
        raise InputError(f"lengths have dtype {array.dtype}{shown}, expected integers: use .astype('int64')")
    if array.shape != (batch,):
        raise InputError(f"lengths have shape {list(array.shape)}, expected [{batch}]: one length for each sequence")
    wrong = np.flatnonzero((array < 0) | (array > steps))
    problems = [f"lengths[{row}] is {array[row]}, expected 0 to {steps}" for row in wrong[:_ROWS_LISTED]]
    if len(wrong) > _ROWS_LISTED:
        problems.append(f"and {len(wrong) - _ROWS_LISTED} rows more")
    raise_all(problems, InputError)
    return array.astype(np.int64)
