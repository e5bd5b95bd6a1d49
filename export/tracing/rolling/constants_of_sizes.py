"""Constants that code makes as large as an axis is: ``torch.tensor([start] * batch)``, ``torch.tensor(list(range(steps)))``.

A recording has them as the numbers that they were at its sizes.  Those that differ from one recording to the next are written
as operations of sizes: one number everywhere, entries that do not change along an axis, or numbers that count along one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rnncore.export.tracing.callers import Line
from rnncore.export.tracing.rolling.log import Constant, Log, Op, Ref, leaves, mapped

aten = torch.ops.aten
_Lines = tuple[Line, ...]
_Writer = Callable[["_Start", Tensor], Ref]


class _Start:
    """Operations that come before all others of a log."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.ops: list[Op] = []

    def add(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor, lines: _Lines) -> Ref:
        """The result of one more operation, whose arguments are values of the log."""
        shapes, dtypes = [tuple(result.shape)], [result.dtype]
        self.ops.append(Op(target, args, kwargs, shapes, dtypes, False, lines, ""))
        return Ref(len(self.ops) - 1)

    def constant(self, tensor: Tensor) -> Constant:
        """A constant of the log."""
        found = Constant.of(tensor)
        self.log.shapes[found], self.log.dtypes[found] = found.shape, found.dtype
        return found


def with_sizes_in_constants(logs: Sequence[Log]) -> tuple[Sequence[Log], bool]:
    """``logs`` in which constants that follow the sizes are computed from these, and whether there are such."""
    found = [_constants(log) for log in logs]
    if len({len(one) for one in found}) > 1 or all(list(one) == list(found[0]) for one in found):
        return logs, False
    starts = [_Start(log) for log in logs]
    moved: list[dict[Constant, Ref]] = [{} for _ in logs]
    for column in zip(*(one.items() for one in found), strict=True):
        constants = [constant for constant, _ in column]
        if len(set(constants)) == 1:
            continue
        write = _writer([constant.tensor() for constant in constants], column[0][1])
        if write is None:
            continue  # who reads it is refused by the line
        for start, table, constant in zip(starts, moved, constants, strict=True):
            table[constant] = write(start, constant.tensor())
    return [_joined(start, table) for start, table in zip(starts, moved, strict=True)], True


def _constants(log: Log) -> dict[Constant, _Lines]:
    """The constants of a log in the order in which they are first read, each with the lines of who reads it."""
    found: dict[Constant, _Lines] = {}
    for op in log.ops:
        for value in leaves(op.everything):
            if isinstance(value, Constant):
                found.setdefault(value, op.lines)
    for _, value in log.outputs:
        if isinstance(value, Constant):
            found.setdefault(value, ())
    return found


def _writer(tensors: Sequence[Tensor], lines: _Lines) -> _Writer | None:
    """What writes the constant that was ``tensors`` in each log; None where no rule is known."""
    if len({(tensor.dtype, tensor.dim()) for tensor in tensors}) > 1 or any(not tensor.numel() for tensor in tensors):
        return None
    if all(bool((tensor == tensor.flatten()[0]).all()) for tensor in tensors):
        return lambda start, tensor: _full(start, tensor, lines)
    grows = [axis for axis in range(tensors[0].dim()) if len({tensor.shape[axis] for tensor in tensors}) > 1]
    bases = [_first(tensor, grows) for tensor in tensors]
    if not grows or any(not torch.equal(base, bases[0]) for base in bases):
        return None
    if all(torch.equal(tensor, base.expand(tensor.shape)) for tensor, base in zip(tensors, bases, strict=True)):
        return lambda start, tensor: _expanded(start, start.constant(bases[0]), tensor, lines)
    for axis in grows:
        step = _step(tensors, axis)
        if step and all(torch.equal(t, _counted(t, bases[0], axis, step)) for t in tensors):
            return lambda start, tensor, axis=axis, step=step: _counting(start, tensor, bases[0], (axis, step), lines)  # type: ignore[misc]
    return None


def _first(tensor: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        tensor = tensor.narrow(axis, 0, 1)
    return tensor


def _step(tensors: Sequence[Tensor], axis: int) -> int:
    """How much whole numbers grow from one entry to the next; 0 if they are no such numbers."""
    tensor = next((tensor for tensor in tensors if tensor.shape[axis] > 1), None)
    if tensor is None or tensor.dtype in (torch.bool, torch.complex64, torch.complex128):
        return 0
    first, second = tensor.movedim(axis, 0)[:2].reshape(2, -1)[:, 0].tolist()
    return int(second - first) if second - first == int(second - first) else 0


def _counted(tensor: Tensor, base: Tensor, axis: int, step: int) -> Tensor:
    numbers = (torch.arange(tensor.shape[axis]) * step).to(tensor.dtype)
    return (base + numbers.reshape([-1 if k == axis else 1 for k in range(tensor.dim())])).expand(tensor.shape)


def _full(start: _Start, tensor: Tensor, lines: _Lines) -> Ref:
    number = tensor.flatten()[0].item()
    return start.add(aten.full.default, (tuple(tensor.shape), number), {"dtype": tensor.dtype}, tensor, lines)


def _expanded(start: _Start, base: Any, tensor: Tensor, lines: _Lines) -> Ref:
    return start.add(aten.expand.default, (base, tuple(tensor.shape)), {}, tensor, lines)


def _counting(start: _Start, tensor: Tensor, base: Tensor, rule: tuple[int, int], lines: _Lines) -> Ref:
    axis, step = rule
    n = tensor.shape[axis]
    numbers = (torch.arange(n) * step).to(tensor.dtype)
    shape = tuple(n if k == axis else 1 for k in range(tensor.dim()))
    counted = start.add(aten.arange.start_step, (0, step * n, step), {"dtype": tensor.dtype}, numbers, lines)
    laid = start.add(aten.reshape.default, (counted, shape), {}, numbers.reshape(shape), lines)
    added = base + numbers.reshape(shape)
    total = start.add(aten.add.Tensor, (start.constant(base), laid), {}, added, lines)
    return total if added.shape == tensor.shape else _expanded(start, total, tensor, lines)


def _joined(start: _Start, table: dict[Constant, Ref]) -> Log:
    more = len(start.ops)

    def moved(value: Any) -> Any:
        if isinstance(value, Ref):
            return Ref(value.op + more, value.part)
        return table.get(value, value) if isinstance(value, Constant) else value

    ops = list(start.ops)
    for op in start.log.ops:
        args, named = op.with_arguments(mapped(op.everything, moved))
        ops.append(replace(op, args=args, kwargs=named))
    return replace(start.log, ops=ops, outputs=[(name, moved(value)) for name, value in start.log.outputs])
