"""``squeeze()`` without an axis, which drops one more where the batch or the time is 1: a file keeps that one.

Most people mean the axis that is always 1.  Which axes these are is seen at sizes where batch and time are more; from then on
the module is run with just these dropped, if that gives its own numbers at a size of 1, but for the shape, or if it fails there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rnncore.export.tracing.callers import Line, user_lines
from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.nesting import named_tensors
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.format.axes import BATCH, TIME

_ENDED = "ended"
"""Stands among sizes where the last step of masks is to be none of a row."""
_Place = tuple[Line, ...]
_Dropped = tuple[int, tuple[int, ...]]
"""How many axes there were, and those that went."""


class Squeezes(TorchFunctionMode):
    """Notes which axes every ``squeeze`` dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[_Place, _Dropped, bool]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        shape = tuple(args[0].shape) if _squeezes(func) and isinstance(args[0], Tensor) else ()
        result = func(*args, **(kwargs or {}))
        if _squeezes(func) and isinstance(result, Tensor):
            every = len(args) == 1 and not kwargs
            gone = tuple(axis for axis, size in enumerate(shape) if size == 1)
            if not every:
                gone = gone[: len(shape) - result.dim()]  # how many is all that is asked of the others
            self.seen.append((user_lines(2), (len(shape), gone), every))
        return result


class _Keeping(TorchFunctionMode):
    """Lets every ``squeeze()`` of known lines drop its own axes and no others.

    outside: how many lines are running around the module, which are no matter.
    """

    def __init__(self, known: Mapping[_Place, _Dropped], outside: int) -> None:
        super().__init__()
        self._known, self._outside = known, outside

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _squeezes(func) and len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
            rank, gone = self._known.get(user_lines(2)[self._outside :], (-1, ()))
            if rank == args[0].dim():
                return func(args[0], gone)
        return func(*args, **(kwargs or {}))


def _squeezes(func: Any) -> bool:
    return getattr(func, "__name__", "") == "squeeze"


def keeping_axes(module: nn.Module, example: Example, *, said: bool = False) -> tuple[nn.Module, list[str]]:
    """``module``, a copy, with its batch and time axes kept where ``squeeze()`` drops them at size 1; and remarks on where.

    As it is where that would give other numbers than its own; but if the caller has ``said`` that the batch is free, one row
    gives what it gives among others, whatever the module makes of it alone.
    """
    known = _always_one(module, example)
    if not known or "forward" in module.__dict__:
        return module, []
    found = [(sizes, _compared(module, known, example, sizes)) for sizes in _ones(example)]
    other = [sizes for sizes, same in found if same is False]
    if other and not (said and all(_as_among_others(module, known, example, sizes) for sizes in other)):
        return module, []
    what = "squeeze() drops the batch or time axis where it is 1; the file keeps it"
    if other:
        what = "of one row alone forward makes other numbers, as squeeze() drops its axis; the file gives what it is among others"
    remarks = [f"{what}: {lines[-1]}" for lines in {place[-1:]: place for place in known if place}.values()]
    return _changed(module, known), remarks if any(same is not None for _, same in found) else []


def _as_among_others(
    module: nn.Module, known: Mapping[_Place, _Dropped], example: Example, sizes: Mapping[str, int]
) -> bool:
    """Whether one row, with its axis kept, gives the numbers that it gives beside another one; at a time of 1 the same."""
    if sizes[BATCH] > 1:
        return False
    alone = _answer(module, example, sizes, _Keeping(known, 0))
    twice = _answer(module, example, sizes, _Keeping(known, 0), rows=2)
    if alone is None or twice is None or len(alone) != len(twice):
        return False
    return all(any(_same(a, row, flat=False) for row in _first_rows(b, a)) for a, b in zip(alone, twice, strict=True))


def _first_rows(value: Tensor, like: Tensor) -> list[Tensor]:
    """The first of two rows along each axis that may be the batch, where the other tensor has one."""
    if value.dim() != like.dim():
        return []
    axes = [a for a, (two, one) in enumerate(zip(value.shape, like.shape, strict=True)) if (two, one) == (2, 1)]
    return [value.narrow(axis, 0, 1) for axis in axes]


def _always_one(module: nn.Module, example: Example) -> dict[_Place, _Dropped]:
    """What ``squeeze()`` drops in each line, as far as it is the same each time, where batch and time are more than 1."""
    for sizes in ({BATCH: 3, TIME: 7}, {BATCH: 3}):
        noted, ended = Squeezes(), Squeezes()
        if _answer(module, example, sizes, noted) is not None:
            break
    else:
        return {}
    if _has_masks(example):  # code may go another way where no row ends
        _answer(module, example, {**sizes, _ENDED: 1}, ended)
    found: dict[_Place, set[_Dropped]] = {}
    for place, dropped, every in (*noted.seen, *ended.seen):
        if every:
            found.setdefault(place, set()).add(dropped)
    return {place: next(iter(dropped)) for place, dropped in found.items() if len(dropped) == 1}


def _ones(example: Example) -> list[dict[str, int]]:
    """Sizes with a batch or a time of 1."""
    if TIME not in example.axis_names:
        return [{BATCH: 1}]
    ended = [{BATCH: 1, TIME: 7, _ENDED: 1}] if _has_masks(example) else []
    return [{BATCH: 1}, {BATCH: 1, TIME: 7}, {BATCH: 3, TIME: 1}, {BATCH: 1, TIME: 1}, *ended]


def _has_masks(example: Example) -> bool:
    return any(own.filling is not None and own.value.dim() > 1 for own in example.inputs)


def _compared(
    module: nn.Module, known: Mapping[_Place, _Dropped], example: Example, sizes: Mapping[str, int]
) -> bool | None:
    """Whether keeping axes gives the module's numbers at these sizes, or answers where it fails; None if it changes nothing."""
    own = _answer(module, example, sizes, Squeezes())
    kept = _answer(module, example, sizes, _Keeping(known, 0))
    if own is None or kept is None:
        return None if own is kept else own is None
    if len(own) == len(kept) and all(_same(a, b, flat=False) for a, b in zip(own, kept, strict=True)):
        return None
    return len(own) == len(kept) and all(_same(a, b, flat=True) for a, b in zip(own, kept, strict=True))


def _same(a: Tensor, b: Tensor, *, flat: bool) -> bool:
    if a.dtype != b.dtype or a.numel() != b.numel() or (not flat and a.shape != b.shape):
        return False
    return torch.allclose(a.flatten().double(), b.flatten().double(), rtol=1e-4, atol=1e-5, equal_nan=True)


def _answer(
    module: nn.Module, example: Example, sizes: Mapping[str, int], mode: TorchFunctionMode, rows: int = 1
) -> Sequence[Tensor] | None:
    """What the module gives under ``mode``, with each of its rows ``rows`` times; None if it fails."""
    own = {
        axis: size
        for one in example.inputs
        for axis, size in zip(one.axes, one.value.shape, strict=True)
        if isinstance(axis, str)
    }
    with unchanged(module), torch.no_grad():
        try:
            tensors = example.draw({**own, **sizes}, torch.Generator().manual_seed(0))
            for one, tensor in zip(example.inputs, tensors, strict=True):
                if _ENDED in sizes and one.filling is not None and tensor.dim() > 1:
                    tensor[..., -1] = 1 - one.filling
            if rows > 1:
                named = zip(tensors, example.inputs, strict=True)
                tensors = [t.repeat([rows if axis == BATCH else 1 for axis in i.axes]) for t, i in named]
            with mode:
                return [value for _, value in named_tensors(example.call(module, tensors), "")]
        except Exception as failure:
            pass_on_interruption(failure)
            return None


def _changed(module: nn.Module, known: Mapping[_Place, _Dropped]) -> nn.Module:
    kind: Any = type(module)

    @functools.wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _Keeping(known, len(user_lines(1))):
            return kind.forward(self, *args, **kwargs)

    module.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return module
