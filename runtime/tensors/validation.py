"""Are these arrays what the model expects?  Each problem is one line: what came, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.interrupts import from_signal_handler
from rnncore.runtime.tensors.array_likes import as_array
from rnncore.runtime.tensors.specs import Layout, Slot, shape_text

_KIND = {"f": "floating-point numbers", "i": "integers", "u": "integers", "b": "booleans"}


def bind_arguments(slots: Sequence[Slot], args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Name every argument: positional ones in the order of the inputs, the others by name; options may be missing.

    One dict stands for all arguments by name, as onnxruntime's ``run`` takes them.

    Raises InputError that lists every missing, unknown and doubled one.
    """
    names = [slot.name for slot in slots]
    optional = {slot.name for slot in slots if slot.option is not None}
    first = next(iter(args), None)
    if isinstance(first, Mapping) and len(args) == 1 and not named:
        args, named = (), first
    if not named and len(args) == len(names):
        return dict(zip(names, args, strict=True))
    expected = "expected " + ", ".join(names)
    problems = []
    if len(args) > len(names):
        problems.append(f"{len(args)} inputs given, {expected}")
    given = dict(zip(names, args, strict=False))
    for name, value in named.items():
        if name not in names:
            problems.append(f"there is no input {name!r}, {expected}")
        elif name in given:
            problems.append(f"input {name!r} is given twice, by position and by name")
        else:
            given[name] = value
    problems += [
        f"input {name!r} is missing, {expected}" for name in names if name not in given and name not in optional
    ]
    raise_all(problems)
    return given


def read_item(
    layout: Layout, given: Mapping[str, Any], where: str, problems: list[str], *, whole: bool = True
) -> tuple[dict[str, Array], int]:
    """Check one sequence: every input without its batch axis, ``where`` added to its name in messages.

    whole: it is all of a sequence, to which the limits of the time axis apply, not a chunk.

    Returns arrays by input name and the number of steps; both are meaningless if ``problems`` has grown.
    """
    arrays: dict[str, Array] = {}
    steps: dict[str, int] = {}
    others: NamedSizes = {}
    for slot in layout.inputs:
        if slot.name not in given:
            if slot.option is not None:
                arrays[slot.name] = slot.item_left_out()
            continue
        label = f"input {slot.name!r}{where}"
        time_axis = slot.item_time_axis if slot.chunk is None and slot.counts_steps else None
        too_many = too_many_steps(layout, apparent_steps(given[slot.name], time_axis), where)
        if too_many:  # told before anything is copied
            problems.extend(too_many)
            continue
        array = read_array(given[slot.name], slot, slot.item_shape, label, problems)
        if array is not None:
            arrays[slot.name] = array
            if slot.counts_steps:
                steps[slot.name] = array.shape[slot.item_time_axis or 0]
            for axis, name in slot.named:
                others.setdefault(name, {})[slot.name] = array.shape[axis]
    count = agreed(steps, f"steps{where}", problems)
    problems.extend(too_many_steps(layout, count, where))  # of a value that did not say so before it was read
    problems.extend(limit_problems(layout, {TIME: steps, **others} if whole else others, where))
    for slot in layout.inputs:
        if slot.tied and slot.name in arrays:
            label = f"input {slot.name!r}{where}"
            problems.extend(tied_problems(slot, arrays[slot.name].shape, {TIME: steps, **others}, label))
    return arrays, count


NamedSizes = dict[str, dict[str, int]]
"""Sizes of named axes: by name of the axis, then by name of the input."""


def limit_problems(layout: Layout, sizes: Mapping[str, Mapping[str, int]], where: str = "") -> list[str]:
    """One line for each named axis on which inputs differ, or whose size the model does not take."""
    problems: list[str] = []
    for name, own in sizes.items():
        size = (
            agreed(own, f"entries along axis {name!r}{where}", problems)
            if name != TIME
            else max(own.values(), default=0)
        )
        axis = layout.signature.axis(name)
        if own and axis.bounded and not axis.takes(size):
            first = next(iter(own))
            problems.append(f"input {first!r}{where} has size {size} along axis {name!r}, expected {axis.expected}")
    return problems


def tied_problems(slot: Slot, shape: Sequence[int], sizes: Mapping[str, Mapping[str, int]], label: str) -> list[str]:
    """One line for each axis of an item of ``shape`` whose size is not what follows from that of another input."""
    problems = []
    for axis, size in slot.tied:
        for other, found in list(sizes.get(size.of, {}).items())[:1]:
            if shape[axis] != size.at(found):
                problems.append(
                    f"{label} has size {shape[axis]} along axis {size!r}, expected {size.at(found)}, as {other!r} has "
                    f"{found} along axis {size.of!r}"
                )
    return problems


def too_many_steps(layout: Layout, steps: int, where: str = "") -> list[str]:
    """The problem with a sequence of so many steps, if there is one."""
    if layout.max_steps is None or steps <= layout.max_steps:
        return []
    return [f"{steps} steps{where}, this model was loaded with max_steps={layout.max_steps}: use shorter parts"]


def apparent_steps(value: Any, time_axis: int | None) -> int:
    """Steps of a value that was not read yet, 0 if it does not say."""
    if time_axis is None:
        return 0
    if isinstance(value, list | tuple):
        return len(value) if time_axis == 0 else 0
    shape = getattr(value, "shape", ())
    return int(shape[time_axis]) if isinstance(shape, tuple) and len(shape) > time_axis else 0


def agreed(sizes: Mapping[str, int], what: str, problems: list[str]) -> int:
    """The size that all inputs have in common, 0 if there is none."""
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name!r} has {size}" for name, size in sizes.items())
        problems.append(f"inputs differ in their number of {what}: {listed}")
    return next(iter(sizes.values()), 0)


def read_array(value: Any, slot: Slot, shape: tuple[int | str, ...], label: str, problems: list[str]) -> Array | None:
    """``value`` as a C-contiguous array of the slot's dtype that fits ``shape``; None after adding to ``problems``."""
    try:
        if _is_right(value, slot, shape):
            return np.asarray(value, order="C")
        return _read_array(value, slot, shape, label, problems)
    except MemoryError as error:  # a view may have more numbers than memory has room for
        if from_signal_handler(error):
            raise
        problems.append(f"{label} takes more memory than there is: hand in fewer rows or shorter ones ({error})")
        return None


def _read_array(value: Any, slot: Slot, shape: tuple[int | str, ...], label: str, problems: list[str]) -> Array | None:
    array = _as_array(value, slot.dtype, label, problems)
    if array is None:
        return None
    if slot.chunk is not None and array.ndim == len(shape) - 1:
        axis = shape.index(TIME)
        samples = array.shape[axis]
        if samples % slot.chunk:
            problems.append(
                f"{label} has {samples} samples, the model takes chunks of {slot.chunk}: hand in whole ones"
            )
            return None
        array = array.reshape(*array.shape[:axis], samples // slot.chunk, slot.chunk, *array.shape[axis + 1 :])
    problem = _shape_problem(array.shape, shape)
    if problem:
        problems.append(f"{label} {problem}")
        return None
    converted = _converted(array, slot.dtype, label, problems)
    if converted is None:
        return None
    converted = np.asarray(converted, order="C")
    if slot.bounds is not None and converted.size and not within(converted, slot.bounds):
        problems.append(f"{label} {id_problem(converted, slot.bounds)}")
        return None
    outside = None if slot.option is None else slot.option.problem(converted)
    if outside is not None:
        problems.append(f"{label} {outside}")
        return None
    return converted


def read_option(given: Mapping[str, Any], slot: Slot, size: int, label: str, problems: list[str]) -> Array | None:
    """An optional input for ``size`` sequences: what was given, one number for all of them, or what stands for nothing."""
    if slot.name not in given:
        return slot.left_out(size)
    value = given[slot.name]
    if len(slot.shape) == 1 and isinstance(value, int | float | np.number) and not isinstance(value, bool):
        number = float(value) if slot.dtype.kind == "f" else value  # 1 is a temperature too
        one = read_array([number], slot, slot.shape, label, problems)
        return None if one is None else np.repeat(one, size)
    return read_array(value, slot, slot.shape, label, problems)


def within(ids: Array, bounds: tuple[int, int]) -> bool:
    """True when all ids, at least one, are between the smallest and the largest one."""
    low, high = bounds
    if ids.size == 1:  # a streamed token: three microseconds less
        return bool(low <= ids.item() <= high)
    return bool(ids.min() >= low and ids.max() <= high)


def _is_right(value: Any, slot: Slot, shape: tuple[int | str, ...]) -> bool:
    """The common case, told in a microsecond so that batches of many streams stay cheap."""
    return (
        type(value) is np.ndarray
        and value.dtype == slot.dtype
        and _shape_problem(value.shape, shape) is None
        and (slot.bounds is None or value.size == 0 or (value.flags.c_contiguous and within(value, slot.bounds)))
        and (slot.option is None or slot.option.allows(value))
    )


def _as_array(value: Any, dtype: np.dtype[Any], label: str, problems: list[str]) -> Array | None:
    try:
        array = as_array(value)
    except InputError as error:
        problems.append(f"{label} {error}".replace("an array", f"an array of {dtype}"))
        return None
    except Exception as error:  # the conversion is whatever the caller's type does
        if from_signal_handler(error):
            raise
        problems.append(f"{label} cannot be made an array of {dtype}: {error}")
        return None
    if array.size == 0 and isinstance(value, list | tuple):
        return array.astype(dtype)  # an empty list has no dtype of its own
    return array


def _shape_problem(found: tuple[int, ...], expected: tuple[int | str, ...]) -> str | None:
    if len(found) != len(expected):
        advice = _rank_advice(found, expected)
        return f"has shape {shape_text(found)}, the model expects {shape_text(expected)}{advice}"
    wrong = [axis for axis, size in enumerate(expected) if isinstance(size, int) and found[axis] != size]
    if not wrong:
        return None
    if len(expected) > 1 and wrong == [len(expected) - 1]:
        return f"has {found[-1]} features, the model expects {expected[-1]}"
    return f"has shape {shape_text(found)}, the model expects {shape_text(expected)}"


def _rank_advice(found: tuple[int, ...], expected: tuple[int | str, ...]) -> str:
    if len(found) == len(expected) - 1 and expected[0] == BATCH:
        return ": add a batch axis, x[None]"
    if len(found) == len(expected) - 1 and expected[0] == TIME:
        return ": add a time axis, x[None]"
    if len(found) == len(expected) + 1 and expected[0] == TIME:
        return ": hand in one sequence, without a batch axis"
    return ""


def _converted(array: Array, dtype: np.dtype[Any], label: str, problems: list[str]) -> Array | None:
    """Cast where no meaning is lost: between floats, and between integers whose values fit."""
    if array.dtype == dtype and array.dtype.isnative:
        return array
    if not array.dtype.isnative:
        problems.append(f"{label} has dtype {array.dtype} in foreign byte order: use .astype({dtype.name!r})")
        return None
    if _KIND.get(array.dtype.kind) != _KIND[dtype.kind]:
        want = f"the model expects {_KIND[dtype.kind]} ({dtype})"
        problems.append(
            f"{label} has dtype {array.dtype}, {want}: use .astype({dtype.name!r}) if that is what you mean"
        )
        return None
    if dtype.kind in "iu" and array.size:
        converted = array.astype(dtype)  # before each number is looked at: a view may have more than there is room for
        low, high = int(array.min()), int(array.max())
        bounds = np.iinfo(dtype)
        if low < bounds.min or high > bounds.max:
            problems.append(f"{label} holds integers from {low} to {high}, which do not fit {dtype}")
            return None
        return converted
    try:
        with np.errstate(over="raise", under="ignore"):
            return array.astype(dtype)
    except FloatingPointError:
        problems.append(f"{label} holds numbers too large for {dtype}")
        return None


def id_problem(ids: Array, bounds: tuple[int, int]) -> str:
    """Which id is out of bounds, and where."""
    low, high = bounds
    at = tuple(int(i) for i in np.argwhere((ids < low) | (ids > high))[0])
    position = ", ".join(str(i) for i in at)
    return f"holds the id {int(ids[at])} at [{position}], the model knows {low} to {high}"
