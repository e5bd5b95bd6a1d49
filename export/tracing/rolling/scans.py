"""Linear recurrences that somebody computes in parallel: ``h[t] = a[t] * h[t - 1] + x[t]`` in a logarithm of the steps.

Such a scan goes another way for every number of steps, so no loop can be found in it; it is known by what it gives.  A
function of its own for gradients (``torch.autograd.Function``) that takes two tensors of one shape and returns a third is
tried on random numbers: where it gives what the plain loop gives, the plain loop is recorded in its place.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from rnncore.export.tracing.rolling.forward import forward_of
from rnncore.runtime.error_boundary import pass_on_interruption

_FEWEST = 3  # steps in which a recurrence shows
_DRAWS = 2
_CLOSE = 1e-9  # of float64, relative to the largest number


@dataclass(frozen=True)
class Scan:
    """Which of the two tensors are the factors, along which axis the steps follow each other, and whether from the end."""

    factors: int
    axis: int
    reverse: bool


def find_scan(function: type[Function], args: Sequence[Any]) -> Scan | None:
    """The scan that ``function`` computes of ``args``, None if it is none that is known."""
    if len(args) != 2 or not all(isinstance(value, Tensor) and value.is_floating_point() for value in args):
        return None
    shape = tuple(args[0].shape)
    if shape != tuple(args[1].shape) or max(shape, default=0) < _FEWEST:
        return None
    found: list[Scan | None] = []
    # In a thread of its own nothing is recorded or transformed.
    thread = threading.Thread(target=lambda: found.append(_tried(function, shape)))
    thread.start()
    thread.join()
    return found[0] if found else None


def as_loop(scan: Scan, args: Sequence[Tensor]) -> Tensor:
    """``scan`` of ``args``, step by step."""
    factors, values = args[scan.factors], args[1 - scan.factors]
    order = range(values.shape[scan.axis])
    state = torch.zeros_like(values.select(scan.axis, 0))
    states = []
    for t in reversed(order) if scan.reverse else order:
        state = factors.select(scan.axis, t) * state + values.select(scan.axis, t)
        states.append(state)
    return torch.stack(states[::-1] if scan.reverse else states, scan.axis)


def _tried(function: type[Function], shape: tuple[int, ...]) -> Scan | None:
    axes = [axis for axis, size in enumerate(shape) if size >= _FEWEST]
    candidates = [Scan(f, axis, reverse) for axis in axes for reverse in (False, True) for f in (0, 1)]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(_DRAWS):
            drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]
            got = _answer(function, drawn)
            candidates = [one for one in candidates if got is not None and _equal(got, as_loop(one, drawn))]
    return candidates[0] if len(candidates) == 1 else None


def _answer(function: type[Function], drawn: Sequence[Tensor]) -> Tensor | None:
    try:
        got = forward_of(function, *(value.clone() for value in drawn))
    except Exception as failure:  # not of such numbers
        pass_on_interruption(failure)
        return None
    return got if isinstance(got, Tensor) and got.shape == drawn[0].shape else None


def _equal(got: Tensor, right: Tensor) -> bool:
    return bool((got - right).abs().max() <= _CLOSE * right.abs().max())
