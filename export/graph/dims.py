"""The sizes of values, as the graph says them."""

from __future__ import annotations

import onnx_ir as ir


def dims_of(value: ir.Value | None) -> list[int | str | None]:
    """Sizes of the axes, names of those that are free, None for one without a name; nothing if nobody knows them."""
    if value is None or value.shape is None:
        return []
    return [d if isinstance(d, int) else d.value for d in value.shape]
