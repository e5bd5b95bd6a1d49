"""What a turn of a loop over rows computes, for all rows: tensors with the rows in front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class LeftAsItIs(Exception):
    """A loop over rows that cannot be computed at once stays as it is."""


@dataclass(frozen=True)
class Rows:
    """A value of one turn for all of them: [rows, ...]."""

    tensor: Tensor


@dataclass(frozen=True)
class Written:
    """A tensor whose entries along ``axis`` every turn writes its own of; ``rows`` are those entries, [rows, ...]."""

    rows: Tensor
    axis: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Count:
    """A number that each turn has of its own: ``numbers`` [rows], ``most`` of them the largest.

    what: which numbers that code reads they are, times 1 or -1, and plus what.
    """

    numbers: Tensor
    most: int
    what: tuple[int, int, int]


@dataclass(frozen=True)
class Ragged:
    """A value whose axis has another size in every turn: [rows, ...] with that axis, ``axis`` of one turn, at full size.

    count: so many entries of it count, the first ones, or, not ``head``, all but so many.
    """

    tensor: Tensor
    axis: int
    count: Count
    head: bool = True

    def valid(self) -> Tensor:
        """Which entries count, as [rows, 1, ..., full, ..., 1]."""
        steps = torch.arange(self.tensor.shape[self.axis + 1])
        found = steps.unsqueeze(0) < self.count.numbers.unsqueeze(1)
        found = found if self.head else ~found
        return found.reshape([n if k in (0, self.axis + 1) else 1 for k, n in enumerate(self.tensor.shape)])

    def filled(self, value: Any) -> Tensor:
        """With ``value`` where nothing counts."""
        return chosen(self.valid(), self.tensor, torch.full([], value, dtype=self.tensor.dtype))


@dataclass(frozen=True)
class Steps:
    """A tensor [rows, steps] of one value for as many steps as ``numbers`` says, and another one behind."""

    numbers: list[int]
    steps: int
    value: Any
    behind: Any

    def of(self, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        """The same for other numbers [rows]."""
        valid = torch.arange(self.steps).unsqueeze(0) < numbers.unsqueeze(1)
        if dtype == torch.bool:
            return valid if self.value else ~valid
        return torch.where(valid, torch.full([], self.value, dtype=dtype), torch.full([], self.behind, dtype=dtype))


def steps_of(mask: Tensor) -> Steps | None:
    """What ``mask`` [rows, steps] is, None if it is no such tensor."""
    value, steps = mask[0, 0], mask.shape[1]
    numbers = [int((row == value).sum()) for row in mask]
    behind = next((row[n] for row, n in zip(mask, numbers, strict=True) if n < steps), value)
    rows = [torch.cat([value.expand(n), behind.expand(steps - n)]) for n in numbers]
    same = steps > 1 and bool(value != behind) and torch.equal(torch.stack(rows), mask)
    return Steps(numbers, steps, value.item(), behind.item()) if same else None


def chosen(valid: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``torch.where``, which onnxruntime has not for flags."""
    return (valid & a) | (~valid & b) if a.dtype == torch.bool else torch.where(valid, a, b)


def spread(value: Tensor, shape: Sequence[int]) -> Tensor:
    """``value`` as large as ``shape``, whose first axis it has."""
    for _ in range(len(shape) - value.dim()):
        value = value.unsqueeze(1)
    return value.expand(tuple(shape))


def by_weight(product: Any, args: Sequence[Tensor]) -> Tensor:
    """A product of all rows [rows, n, size] with a weight."""
    *bias, rows, weight = args
    result: Tensor = product(*bias, rows.flatten(0, 1), weight)
    return result.unflatten(0, rows.shape[:2])


def side_by_side(columns: Sequence[Tensor], axis: int, *, stacked: bool) -> Tensor:
    """Rows [rows, ...] of one list or several in turn as entries along ``axis``."""
    rows = columns[0] if len(columns) == 1 else torch.stack(list(columns), 1).flatten(0, 1)
    rows = rows.movedim(0, axis) if axis else rows
    return rows if stacked else rows.flatten(axis, axis + 1)


@contextmanager
def no_row_by_row() -> Iterator[None]:
    """Let vmap fail where it knows nothing better than one row after the other."""
    functorch: Any = torch._C._functorch
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(before)


def affine(numbers: Tensor, sign: int, plus: int, dtype: torch.dtype) -> Tensor:
    """``sign`` times ``numbers``, and ``plus``."""
    numbers = numbers if sign == 1 else -numbers
    return (numbers + plus if plus else numbers).to(dtype)
