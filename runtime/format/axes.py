"""Sizes of axes: names, functions of a named size, two axes as one, and the limits within which a model takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd, lcm
from typing import Any

BATCH = "batch"
TIME = "time"


class Steps(str):
    """A size that follows another: ``(times * of + plus) // over``, at least 0; of a strided model ``(time + 1) // 2``.

    As a text it is what messages show of it.
    """

    of: str
    times: int
    plus: int
    over: int

    def __new__(cls, of: str, times: int = 1, plus: int = 0, over: int = 1) -> Steps:
        """The size ``(times * of + plus) // over``."""
        text = of if times == 1 else f"{times}*{of}"
        text += f"{plus:+d}" if plus else ""
        if over > 1:
            text = f"({text})//{over}" if plus or times != 1 else f"{text}//{over}"
        made = super().__new__(cls, text)
        made.of, made.times, made.plus, made.over = of, times, plus, over
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.of, self.times, self.plus, self.over

    def at(self, size: int) -> int:
        """The size where the axis it follows has ``size``."""
        return max(0, (self.times * size + self.plus) // self.over)


def stride_of(shapes: Iterable[Iterable[Size]]) -> int:
    """The least number of steps after which every size that follows time has grown by whole steps of its own."""
    sizes = [
        size for shape in shapes for size in inner_shape(tuple(shape)) if isinstance(size, Steps) and size.of == TIME
    ]
    return lcm(1, *(size.over // gcd(size.over, size.times) for size in sizes))


def overlap_of(shapes: Iterable[Iterable[Size]], multiple: int = 1) -> int | None:
    """Steps with which a run of a stream begins again, those that the run before ended with, so that its answers go on.

    It is the least number of steps, one of ``multiple``, that no size which is or follows time has a step for yet, and from
    which on each grows by whole steps with every stride (:func:`stride_of`): 2 behind a window of three steps, 0 where an
    answer comes with each step.  None if there is no such number: some outputs begin later than others, or are longer than
    what goes in.
    """
    followers = [size for shape in shapes for size in inner_shape(tuple(shape)) if base_of(size) == TIME]
    sizes = [size if isinstance(size, Steps) else Steps(TIME) for size in followers]
    least = max([0, *(-(size.plus // size.times) for size in sizes)])
    least += -least % multiple
    return least if all(size.times * least + size.plus < size.over for size in sizes) else None


class Flat(str):
    """Two axes laid out as one, such as the rows of an output [batch * time, classes]; as a text what messages show."""

    of: tuple[str, str]

    def __new__(cls, of: tuple[str, str]) -> Flat:
        """The axis made of these two, the outer one first."""
        made = super().__new__(cls, " * ".join(f"({part})" if isinstance(part, Steps) else part for part in of))
        made.of = of
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.of,)


Size = int | str
"""A fixed size, or a free one: its name, or :class:`Steps` or :class:`Flat`, which say what it is made of."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A named free axis and what sizes it may have: a multiple of ``multiple``, from ``minimum`` to ``maximum``."""

    name: str
    minimum: int = 0
    maximum: int | None = None
    multiple: int = 1

    def takes(self, size: int) -> bool:
        """Whether the axis may have this size."""
        return self.minimum <= size and (self.maximum is None or size <= self.maximum) and size % self.multiple == 0

    @property
    def expected(self) -> str:
        """The limits in words: "a multiple of 4, at least 8"."""
        words = [f"a multiple of {self.multiple}"] if self.multiple > 1 else []
        words += [f"at least {self.minimum}"] if self.minimum > 0 else []
        words += [f"at most {self.maximum}"] if self.maximum is not None else []
        return ", ".join(words) or "any size"

    @property
    def bounded(self) -> bool:
        """Whether there is any size that the axis may not have."""
        return self.minimum > 0 or self.maximum is not None or self.multiple > 1


def inner_shape(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """A shape with two axes wherever it has a :class:`Flat` one."""
    sizes: list[Size] = []
    for size in shape:
        sizes.extend(size.of if isinstance(size, Flat) else (size,))
    return tuple(sizes)


def base_of(size: Size) -> str | None:
    """The name of the axis that a size is or follows, None for a fixed size."""
    return size.of if isinstance(size, Steps) else size if isinstance(size, str) else None


def known_size(size: Size, sizes: Mapping[str, int], free: int = 0) -> int:
    """A size as a number, ``free`` for a name that ``sizes`` does not have."""
    if isinstance(size, int):
        return size
    return size.at(sizes.get(size.of, free)) if isinstance(size, Steps) else sizes.get(size, free)


_LARGEST = 1 << 48
"""No axis has so many places."""


def size_to_data(size: Size) -> Any:
    """A size as JSON data."""
    if isinstance(size, Steps):
        return {"of": size.of, "times": size.times, "plus": size.plus, "over": size.over}
    return {"flat": [size_to_data(part) for part in size.of]} if isinstance(size, Flat) else size


def size_from_data(data: Any) -> Size:
    """The size that :func:`size_to_data` wrote; KeyError, TypeError or ValueError for other data."""
    if isinstance(data, str):
        return data
    if isinstance(data, int) and not isinstance(data, bool) and data < _LARGEST:
        return data  # one below zero is told with its place
    if not isinstance(data, dict):
        raise ValueError(f"the size {str(data)[:40]}")
    if "flat" in data:
        first, second = (size_from_data(part) for part in data["flat"])
        if not isinstance(first, str) or not isinstance(second, str):
            raise ValueError(f"an axis made of {first} and {second}")
        return Flat((first, second))
    steps = Steps(str(data["of"]), int(data["times"]), int(data["plus"]), int(data["over"]))
    if steps.over < 1 or steps.times < 1:
        raise ValueError(f"the size {steps}")
    return steps
