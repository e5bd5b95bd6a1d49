"""States and constants of a foreign graph: their shapes, and which axis of a state is the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.foreign.description import Foreign
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.tensors.graph_adapter import GraphPort, GraphState
from rnncore.runtime.tensors.graph_contract import TENSOR_TYPES, GraphValue
from rnncore.runtime.tensors.specs import shape_text

DTYPES = {name: dtype for dtype, name in TENSOR_TYPES.items()}
"""Names of numpy dtypes by onnxruntime's names of tensor types."""

Dims = list[int | str]


def read_dims(foreign: Foreign, value: GraphValue, problems: list[str]) -> Dims:
    """Sizes and names of the axes of a value; ``problems`` grows if the caller names more or fewer than there are.

    The names batch and time mean nothing when the graph says them, so they get a question mark here.
    """
    words = foreign.axes.get(value.name)
    found: Dims = [
        size if isinstance(size, int) else f"{size}?" if size in (BATCH, TIME) else size or "?" for size in value.shape
    ]
    if words is None:
        return found
    if not found:  # onnxruntime reports an unknown rank so
        found = ["?" for _ in words]
    shown = shape_text(tuple(found))
    if len(words) == len(found):
        told: Dims = [int(word) if word.isdecimal() else size for word, size in zip(words, found, strict=True)]
        if fits([size if isinstance(size, int) else 0 for size in told], found):
            return told
        problems.append(f"axes[{value.name!r}] says {shape_text(tuple(told))}, the graph has {shown}")
        return found
    problems.append(f"axes[{value.name!r}] names {len(words)} axes, the graph has {len(found)}: {shown}")
    return found


def read_state(foreign: Foreign, value: GraphValue, problems: list[str]) -> GraphState:
    """A state with its batch axis; that of a graph without free axes is the first of size 1, if there is one."""
    check_dtype("state", value, problems)
    dims = read_dims(foreign, value, problems)
    batch = _batch_axis(foreign, value.name, dims, problems)
    if batch is not None and not isinstance(dims[batch], int):
        dims[batch] = BATCH
    rest = [axis for axis in range(len(dims)) if axis != batch]
    initial = foreign.initial.get(value.name)
    if initial is not None:
        if fits(initial.shape, [dims[axis] for axis in rest]):
            for axis, size in zip(rest, initial.shape, strict=True):
                dims[axis] = size
        else:
            shown = shape_text(tuple(dims[axis] for axis in rest))
            problems.append(f"initial[{value.name!r}] has shape {shape_text(initial.shape)}, one sequence has {shown}")
            return _blank_state(foreign, value.name)
    item = [dims[axis] for axis in rest]
    sizes = tuple(size for size in item if isinstance(size, int))
    if len(sizes) < len(item):
        shown = shape_text(tuple(dims))
        problems.append(
            f"the size of state {value.name!r} {shown} is not known: say which axis is the batch and the sizes of others, "
            f"axes={{{value.name!r}: '… batch …'}}"
        )
        return _blank_state(foreign, value.name)
    return GraphState(GraphPort(value.name, tuple(dims), batch), foreign.states[value.name], sizes)


def read_constant(given: NDArray[Any], value: GraphValue, problems: list[str]) -> NDArray[Any]:
    """The value of a constant input in the dtype of the graph."""
    check_dtype("constant", value, problems)
    dtype = np.dtype(DTYPES.get(value.type, given.dtype))
    if value.shape and not fits(given.shape, value.shape):
        shown = shape_text(tuple("?" if size is None else size for size in value.shape))
        problems.append(f"constants[{value.name!r}] has shape {shape_text(given.shape)}, the graph has {shown}")
    converted = np.array(given, dtype, order="C")
    if dtype.kind != "f" and not np.array_equal(converted, given):
        problems.append(f"constants[{value.name!r}] does not fit {dtype}")
    return converted


def check_dtype(role: str, value: GraphValue, problems: list[str]) -> None:
    """A problem, if numpy has no such dtype or the value is no tensor."""
    if value.type not in DTYPES:
        problems.append(f"{role} {value.name!r} is a {value.type}, which the runtime cannot handle")


def fits(shape: Sequence[int], dims: Sequence[int | str | None]) -> bool:
    """True when an array of this shape may go where some sizes are free."""
    return len(shape) == len(dims) and all(
        size == found or not isinstance(size, int) for found, size in zip(shape, dims, strict=True)
    )


def _batch_axis(foreign: Foreign, name: str, dims: Dims, problems: list[str]) -> int | None:
    words = foreign.axes.get(name)
    if words is not None:
        return words.index(BATCH) if BATCH in words and len(words) == len(dims) else None
    free = [axis for axis, size in enumerate(dims) if not isinstance(size, int)]
    ones = [axis for axis, size in enumerate(dims) if size == 1]
    return next(iter(free or ones), None)


def _blank_state(foreign: Foreign, name: str) -> GraphState:
    """Stands for a state with a problem, so that all others are told too."""
    return GraphState(GraphPort(name, (BATCH,), 0), foreign.states[name], ())
