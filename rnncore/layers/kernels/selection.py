"""Which way along time a cell runs: the fastest one that computes exactly what its step says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnncore.cells import Cell
from rnncore.layers.kernels.fused import fused_kernel, run_fused
from rnncore.layers.kernels.layer_norm import is_plain_layer_norm, run_layer_norm
from rnncore.layers.kernels.peephole import is_plain_peephole, run_peephole
from rnncore.layers.loop import run_loop

if TYPE_CHECKING:
    from rnncore.layers.kernels.compiled import CompiledSteps


@dataclass(frozen=True)
class Sequences:
    """What a kernel runs over.

    x [batch, time, input_size] with at least one row and one step, zero in the padding; start: each state [batch, size];
    lengths [batch] and the mask ``valid`` [batch, time] of the steps within them, both None without padding.
    """

    x: Tensor
    start: tuple[Tensor, ...]
    lengths: Tensor | None
    valid: Tensor | None
    reverse: bool


Result = tuple[Tensor, tuple[Tensor, ...]]
"""y [batch, time, output_size], zero in the padding, and the states after the last valid step."""
Kernel = Callable[[Cell, Sequences], Result]


def select_kernel(cell: Cell, like: Tensor, *, fused: bool, compiled: CompiledSteps | None) -> Kernel:
    """The fastest of: torch's fused kernel, the compiled steps, a loop with its gradient written by hand, the plain loop.

    like: the input, which tells about autocast.  fused: False for the plain loop, whatever there is.
    compiled: what ``rnncore.compile_steps`` made for the layer, used where gradients are taken.
    """
    kernel = fused_kernel(cell) if fused else None
    if kernel is not None:
        return _fused(kernel)
    loop = _masked(_select_loop(cell, fused=fused))
    autocast = torch.is_autocast_enabled(like.device.type)
    if fused and compiled is not None and torch.is_grad_enabled() and not autocast:
        return _compiled(compiled, otherwise=loop)
    return loop


def _select_loop(cell: Cell, *, fused: bool) -> Callable[..., Result]:
    """:func:`rnncore.layers.loop.run_loop` or what stands for it."""
    by_hand = fused and not torch.compiler.is_compiling()  # a compiler fuses the plain loop, and nothing else
    if by_hand and is_plain_peephole(cell):
        return run_peephole
    if by_hand and is_plain_layer_norm(cell):
        return run_layer_norm

    def plain(*arguments: Any, reverse: bool) -> Result:
        return run_loop(*arguments, reverse=reverse, defer=by_hand)

    return plain


def _fused(kernel: Callable[..., Any]) -> Kernel:
    def run(cell: Cell, given: Sequences) -> Result:
        return run_fused(kernel, cell, given.x, given.start, given.lengths, reverse=given.reverse)

    return run


def _masked(loop: Callable[..., Result]) -> Kernel:
    def run(cell: Cell, given: Sequences) -> Result:
        return _mask(loop(cell, given.x, given.start, given.valid, reverse=given.reverse), given.valid)

    return run


def _compiled(steps: CompiledSteps, otherwise: Kernel) -> Kernel:
    def run(cell: Cell, given: Sequences) -> Result:
        found = steps.run(cell, given.x, given.start, given.valid, reverse=given.reverse)
        return otherwise(cell, given) if found is None else _mask(found, given.valid)

    return run


def _mask(result: Result, valid: Tensor | None) -> Result:
    y, end = result
    return (y if valid is None else y.masked_fill(~valid, 0.0)), end
