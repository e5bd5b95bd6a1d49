"""What the rows of a recurrent call are: sequences of the batch, several of each (bands), or the steps themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx_ir as ir

from rnncore.export.graph.dims import dims_of
from rnncore.export.graph.zero_values import always_zero
from rnncore.export.tracing.recorder import DOMAIN, OP_TYPE, Call, StreamingLayerCall
from rnncore.runtime.format.axes import BATCH, TIME

_EACH = re.compile(rf"(\d+)\*{BATCH}")
_FIRST_STATE = 3
_ROW_BY_ROW = {"Add", "Cast", "Identity", "Mul", "Relu", "Sigmoid", "Sub", "Tanh"}


def rows_of_each(dims: Sequence[int | str | None]) -> int | None:
    """How many rows each sequence of the batch has, from the size of their axis; None if it is none such."""
    rows = dims[0] if dims else None
    if rows == BATCH:
        return 1
    found = _EACH.fullmatch(rows) if isinstance(rows, str) else None
    return int(found[1]) if found else None


def rows_lie_apart(node: ir.Node) -> bool:
    """Whether a call with several rows for each sequence has the first of all sequences first, then all second ones.

    So ``torch.cat([x[:, k::2] for k in range(2)])`` lays them; those of one sequence side by side are laid by a reshape.
    """
    value, axis = node.inputs[0], 0
    while value is not None and (made := value.producer()) is not None:
        dims = dims_of(value)
        if made.op_type == "Concat":
            parts = [dims_of(part)[axis : axis + 1] for part in made.inputs]
            return made.attributes["axis"].as_int() % len(dims) == axis and all(part == [BATCH] for part in parts)
        if made.op_type == "Transpose":
            axis = list(made.attributes["perm"].as_ints())[axis]
            value = made.inputs[0]
            continue
        same = [
            part for part in made.inputs if part is not None and dims_of(part)[axis : axis + 1] == dims[axis : axis + 1]
        ]
        if made.domain != "" or made.op_type not in _ROW_BY_ROW or not same:
            return False
        value = same[0]
    return False


def inner_calls(model: ir.Model) -> set[str]:
    """Calls over another axis than time, such as the bands of a frame, with a row for every step: they carry nothing."""
    found = set()
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type == OP_TYPE:
            rows, steps = [*dims_of(node.inputs[0])[:2], None, None][:2]
            if steps is not None and not _mentions(steps, TIME, BATCH) and _mentions(rows, TIME):
                found.add(node.attributes["call"].as_string())
    return found


def any_runs_on(model: ir.Model) -> bool:
    """Whether a call that carries something knows no lengths: it runs on where a row of a padded batch has ended."""
    inner = inner_calls(model)
    calls = [node for node in model.graph if node.domain == DOMAIN and node.op_type == OP_TYPE]
    return any(node.inputs[2] is None for node in calls if node.attributes["call"].as_string() not in inner)


def _mentions(size: int | str | None, *names: str) -> bool:
    return isinstance(size, str) and re.search(rf"\b({'|'.join(names)})\b", size) is not None


def starts_anew(node: ir.Node, call: Call | StreamingLayerCall) -> bool:
    """Whether a recurrent call starts from what a file carries by itself: nothing, zeros, or a constant."""
    if not call.given_state or getattr(call, "starts", None) is not None:
        return True
    sizes = call.cell.state_sizes if isinstance(call, Call) else ()
    return all(always_zero(state) for state in list(node.inputs[_FIRST_STATE:])[: len(sizes)])
