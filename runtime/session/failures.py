"""What the errors of onnxruntime become, and how they are told from all others."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError
from rnncore.runtime.interrupts import from_signal_handler

_OF_LIBRARY = (
    RuntimeError,
    MemoryError,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
)  # as pybind11 translates them
_NO_MEMORY = re.compile(r"bad_alloc|[Ff]ailed to allocate memory")
_NO_SUCH_PLACE = re.compile(r"invalid ind\w+ found, ind\w+ = (-?\d+)|Out of range value in index tensor")
_BELOW = (2**63 - 1, 2**31 - 1)
_OUT_OF_TABLE = re.compile(r"idx=(-?\d+) must be within the inclusive range \[(-?\d+),(-?\d+)\]")


def of_runtime(error: Exception) -> bool:
    """True for what onnxruntime raised, or its C++ library; anything else goes its own way: a time limit, say."""
    own = type(error).__module__.partition(".")[0] == "onnxruntime"
    return own or (isinstance(error, _OF_LIBRARY) and not from_signal_handler(error))


def run_error(
    error: Exception, most_steps: int | None = None, feeds: Mapping[str, Array] = MappingProxyType({})
) -> InputError:
    """What a failed run becomes.  Shapes and dtypes were checked before, so what is left lies in the values.

    most_steps: so many a sequence of the model has at most, because a table of positions ends there.  feeds: what the graph was
    given: an axis of any size may be empty, and not every graph computes with nothing.
    """
    found = _OUT_OF_TABLE.search(str(error))
    if found and most_steps is not None and int(found[3]) == most_steps - 1 <= int(found[1]):
        return InputError(
            f"a sequence has more than the {most_steps} steps that this model takes in all (its positions end there), or an "
            f"input holds the id {found[1]} of a table that ends at {found[3]}"
        )
    if found and int(found[3]) < 0:  # an axis of nothing, as one that the module's own squeeze() took away at size 1
        return InputError(f"the model looks up place {found[1]} along an axis that has no entry at these sizes")
    if found:
        # A computed place below 0 is made the largest integer by the file itself, so that it is not read from the end.
        which = "gives an id below 0" if int(found[1]) in _BELOW else f"holds the id {found[1]}"
        return InputError(f"an input {which}, the model's table ends at {found[3]}: use ids 0 to {found[3]}")
    found = _NO_SUCH_PLACE.search(str(error))
    if found:
        which = f"the id {found[1]}" if found[1] and int(found[1]) not in _BELOW else "an id"
        return InputError(f"an input holds or gives {which} that the model's tables do not hold")
    if _NO_MEMORY.search(str(error)):
        return _too_large(error)
    empty = next((name for name, array in feeds.items() if not array.size), None)
    if empty is not None:
        return InputError(
            f"input {empty!r} is empty, its shape is {list(feeds[empty].shape)}, and the model does not compute with nothing: "
            "hand in one entry at least along every axis"
        )
    return InputError(f"onnxruntime could not run the model on this input: {readable(error)}")


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Arrays made within may be too large for this machine: an InputError that says what to do, and nothing has changed."""
    try:
        yield
    except MemoryError as error:
        raise _too_large(error) from error


def _too_large(error: Exception) -> InputError:
    return InputError(
        "there is not enough memory to run the model on so many steps at once: use shorter chunks or fewer rows, or load "
        f"the model with max_steps and max_batch_steps ({readable(error)})"
    )


def readable(error: Exception) -> str:
    """Message of onnxruntime without its numeric code and the source location of its build."""
    text = str(error).strip()
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"\S*/onnxruntime\S*\.(?:cc|h):\d+ ", "", text)
    return " ".join(text.split())
