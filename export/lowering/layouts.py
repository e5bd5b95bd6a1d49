"""Where batch and time are in the values of a graph, and what its nodes say about them in numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx_ir as ir

from rnncore.runtime.format.axes import BATCH, TIME

_TIME = re.compile(rf"\b{TIME}\b")
_TIME_AND_MORE = re.compile(rf"{TIME}(?: ([+-]) (\d+))?")


@dataclass(frozen=True)
class Layout:
    """Where batch and time are among the axes of a value whose other sizes are fixed."""

    dims: tuple[int | str, ...]
    batch: int
    time: int

    @classmethod
    def of(cls, value: ir.Value | None) -> Layout | None:
        """The layout of a value; None if it has another free axis, or not these two."""
        dims = sizes_of(value)
        free = free_axes(dims)
        batch = [axis for axis in free if dims[axis] == BATCH]
        time = [axis for axis in free if _TIME.search(str(dims[axis]))]
        return cls(dims, batch[0], time[0]) if len(free) == 2 and len(batch) == len(time) == 1 else None

    def shape(self, steps: int) -> tuple[int | str, ...]:
        """With so many steps."""
        return tuple(steps if axis == self.time else d for axis, d in enumerate(self.dims))

    def item(self, steps: int) -> tuple[int, ...]:
        """Shape of one row of so many steps."""
        return tuple(d for axis, d in enumerate(self.shape(steps)) if axis != self.batch and isinstance(d, int))


def sizes_of(value: ir.Value | None) -> tuple[int | str, ...]:
    """Sizes of the axes of a value, names for free ones ("None" for one without); empty if nobody knows them."""
    if value is None or value.shape is None:
        return ()
    return tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)


def free_axes(dims: tuple[int | str, ...]) -> list[int]:
    """The axes of which the size is no number."""
    return [axis for axis, d in enumerate(dims) if not isinstance(d, int)]


def numbers_of(node: ir.Node, place: int) -> list[int] | None:
    """Input ``place`` as integers (a fill value as it is), None if it is not constant."""
    value = node.inputs[place] if place < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy().ravel().tolist()


END = 1 << 31
"""Slices that end here or behind it end with the axis."""


def part_of(node: ir.Node | None) -> tuple[int, int | None, int] | None:
    """(start, end, axis) of a ``Slice`` along one axis, one by one; the end None if it is not constant; None for others."""
    if node is None or node.op_type != "Slice" or node.inputs[0] is None or len(node.inputs) < 4:
        return None
    starts, ends, axes = (numbers_of(node, place) for place in (1, 2, 3))
    steps = numbers_of(node, 4) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    if starts is None or axes is None or len(starts) != 1 or len(axes) != 1 or steps != [1]:
        return None
    return starts[0], None if ends is None else ends[0], axes[0]


def steps_more(value: ir.Value | None, axis: int) -> int | None:
    """How many steps more than the input a value has along an axis, None if it is not a fixed number."""
    dims = sizes_of(value)
    found = _TIME_AND_MORE.fullmatch(str(dims[axis])) if axis < len(dims) else None
    return None if found is None else int(f"{found[1] or '+'}{found[2] or 0}")


def cut_at_end(x: ir.Value, axis: int) -> tuple[ir.Value, int] | None:
    """What x is without so many of its last steps, if x is that."""
    node = x.producer()
    part, source = part_of(node), None if node is None else node.inputs[0]
    if x.shape is None or part is None or source is None or (part[0], part[2]) != (0, axis):
        return None
    if part[1] is None:  # [: x.shape[1]], of something longer by a fixed number of steps
        longer, shorter = steps_more(source, axis), steps_more(x, axis)
        cut = None if longer is None or shorter is None else longer - shorter
        return (source, cut) if cut is not None and cut > 0 else None
    return (source, -part[1]) if part[1] < 0 else None


def first_steps(value: ir.Value | None) -> tuple[ir.Value, int, int] | None:
    """(x, axis, k) if ``value`` is the first k steps of x along its time axis, as ``x[:, :k]`` or ``x[:, 0]`` takes them.

    ``x[:, 0]`` has no such axis any more.
    """
    node = None if value is None else value.producer()
    if node is None or node.op_type not in ("Slice", "Gather") or node.inputs[0] is None:
        return None
    x = node.inputs[0]
    layout = Layout.of(x)
    if layout is None or steps_more(x, layout.time) != 0:
        return None
    if node.op_type == "Gather":
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        one = axis % len(layout.dims) == layout.time and numbers_of(node, 1) == [0]
        return (x, layout.time, 1) if one and sizes_of(node.inputs[1]) in ((), (1,)) else None
    part = part_of(node)
    if part is None or (part[0], part[2]) != (0, layout.time) or part[1] is None or not 0 < part[1] < END:
        return None
    return x, layout.time, part[1]
