"""Arguments that are numbers: what counts as one, and what is said of a wrong count."""

from __future__ import annotations

from typing import Any

import numpy as np


def count_problems(name: str, value: Any, least: int = 1, *, instead: str = "", numpy: bool = False) -> list[str]:
    """The one line that is wrong with ``value``, or nothing when it is an integer of at least ``least``.

    True and False are no counts.  instead: what is allowed besides, which the caller has looked for, such as ", or None".
    numpy: integers of NumPy will do as well.
    """
    kinds = (int, np.integer) if numpy else (int,)
    if isinstance(value, kinds) and not isinstance(value, bool) and value >= least:
        return []
    return [f"{name} is {value!r}, expected an integer of at least {least}{instead}"]


def is_whole(value: Any) -> bool:
    """Whether ``value`` is an integer of Python or NumPy; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number of Python or NumPy that float64 has room for."""
    if not is_whole(value) and not isinstance(value, float | np.floating):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True
