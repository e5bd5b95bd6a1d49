"""A compiled step along time, forward and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.exc import InductorError

from rnncore.cells import Cell
from rnncore.layers.kernels.compiled.partition import HalfStep, SplitStep, split_step
from rnncore.layers.kernels.compiled.products import add_product
from rnncore.layers.kernels.compiled.trace import trace_step
from rnncore.layers.kernels.gate_gradients import STEPS_AT_ONCE, blocks_backward

Backend = Callable[[fx.GraphModule, list[Tensor]], Callable[..., Sequence[Tensor]]]
"""Makes a function of a graph and of inputs like those that it will be called with."""

Columns = Mapping[str, Sequence[Any]]
"""For each kind of value, and each of that kind: a tensor that all steps share, or one for each step in their order."""


class StepProgram:
    """What :func:`rnncore.layers.loop.run_loop` computes, for inputs of the shapes that it was made with; any time.

    Args:
        cell: what to run.
        tensors: its parameters and buffers by name, see :func:`own_tensors`.
        z: [time, batch, size], projected and in the order of the loop.
        states: before the first step, [batch, size] each.
        keep: boolean [time, batch, 1], where False the state is held, or None.
        backend: what compiles a graph.

    Raises:
        InputError: the step of ``cell`` cannot be traced.
    """

    def __init__(
        self,
        cell: Cell,
        tensors: Mapping[str, Tensor],
        z: Tensor,
        states: Sequence[Tensor],
        keep: Tensor | None,
        backend: Backend,
    ) -> None:
        step = trace_step(cell, z[0], states, None if keep is None else keep[0], tensors)
        self.split = split_step(step)
        self._backend = backend
        self._compiled: dict[str, Callable[..., object]] = {}

    def run(
        self, tensors: Mapping[str, Tensor], z: Tensor, states: Sequence[Tensor], keep: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(y [time, batch, size], not masked; states after the last step)."""
        y, *last = _AlongTime.apply(self, keep, z, *states, *tensors.values())
        return y, tuple(last)

    def forward(self, columns: Columns) -> None:
        """Run every step from the first to the last."""
        self._run("forward", self.split.forward, columns)

    def backward(self, columns: Columns) -> None:
        """Run some steps back, from the last to the first, in whose order the columns are."""
        self._run("backward", self.split.backward, columns)

    def _run(self, name: str, half: HalfStep, columns: Columns) -> None:
        if name not in self._compiled:
            self._compiled[name] = _compiled(
                half, [value.clone() for value in next(_calls(half, columns))], self._backend
            )
        step = self._compiled[name]
        for given in _calls(half, columns):
            step(*given)


def own_tensors(cell: Cell) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(cell.named_parameters()), **dict(cell.named_buffers())}


def _compiled(half: HalfStep, like: list[Tensor], backend: Backend) -> Callable[..., object]:
    """``half`` as a function that writes into its inputs."""
    targets = [k for k, _ in half.writes]
    try:
        step = backend(half.writing(), like)
        if _agree(step, half, like):
            return step
    except InductorError:  # writing confuses it now and then: https://github.com/pytorch/pytorch/issues/196570
        pass
    returning = backend(half.returning(), like)

    def writing(*given: Tensor) -> None:
        for k, value in zip(targets, returning(*given), strict=True):
            given[k].copy_(value)

    if not _agree(writing, half, like):
        raise RuntimeError(
            "a compiled step gives other numbers than the same step of torch's own operators: a fault of the compiler; "
            "leave out compile_steps, and please report the cell"
        )
    return writing


def _agree(step: Callable[..., object], half: HalfStep, like: list[Tensor]) -> bool:
    """Whether ``step`` writes what ``half`` does, but for rounding, which a division by a small deviation can make large."""
    plain, targets = half.writing(), [k for k, _ in half.writes]
    if any(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in plain.graph.nodes):
        return True  # each draws numbers of its own
    ours, theirs = ([value.clone() for value in like] for _ in range(2))
    for k in targets:
        if half.inputs[k][0] != "total" and ours[k].is_floating_point():
            ours[k].fill_(float("nan"))  # memory used before may hold the right numbers, and nobody has written them
    step(*ours)
    plain(*theirs)
    return all(_close(ours[k], theirs[k]) for k in targets)


def _close(a: Tensor, b: Tensor) -> bool:
    if not b.is_floating_point():  # what is above a threshold may be on its other side after rounding
        return bool((a != b).double().mean() < 0.01)
    largest = float(b.nan_to_num(0.0, 0.0, 0.0).abs().max())
    bound = max(0.01, 16 * torch.finfo(b.dtype).eps) * largest
    return torch.allclose(a, b, rtol=0.0, atol=bound, equal_nan=True)


def _calls(half: HalfStep, columns: Columns) -> Iterator[tuple[Tensor, ...]]:
    """The inputs of each step."""
    values = [columns[kind][k] for kind, k in half.inputs]
    return zip(*(repeat(value) if isinstance(value, Tensor) else value for value in values), strict=False)


class _AlongTime(torch.autograd.Function):
    """(program, keep, z, *states, *tensors) -> (y, *last states)."""

    @staticmethod
    def forward(ctx: Any, program: StepProgram, keep: Tensor | None, z: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        split, time = program.split, len(z)
        states, tensors = given[: len(split.states)], [value.detach() for value in given[len(split.states) :]]
        outs = [_every_step(node, z) for node in split.outs]
        kept = []  # each state before every step, and after the last
        for start, k in zip(states, split.states, strict=True):
            every = outs[k].new_empty(time + 1, *start.shape)
            every[0] = start
            kept.append(every)
            outs[k] = every[1:]
        program.forward(
            {
                "z": [z.detach().unbind(0)],
                "state": [every.unbind(0)[:-1] for every in kept],
                "keep": [] if keep is None else [keep.unbind(0)],
                "tensor": tensors,
                "cut": _cuts(split, split.forward, tensors),
                "forward": [every.unbind(0) for every in outs],
            }
        )
        ctx.program = program
        ctx.save_for_backward(z, keep, *kept, *outs, *given[len(split.states) :])
        # Copies: the memory is kept for the gradient, and a caller may write into what he is given.
        return outs[split.y].clone(), *(every[time].clone() for every in kept)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *d_last: Tensor) -> tuple[Tensor | None, ...]:
        program: StepProgram = ctx.program
        split = program.split
        z, keep, *others = ctx.saved_tensors
        time, first, second = len(z), len(split.states), len(split.states) + len(split.outs)
        kept, outs, tensors = others[:first], others[first:second], others[second:]
        # The gradient of z leaves; other factors are used block by block, in memory that stays in the caches.
        few = z[:STEPS_AT_ONCE]
        back = [_every_step(node, z if split.d_z and k == 0 else few) for k, node in enumerate(split.back)]
        totals = [z.new_zeros(node.meta["val"].shape, dtype=node.meta["val"].dtype) for node in split.totals]
        sums: list[Tensor | None] = [None] * len(tensors)
        cuts, dy = _cuts(split, split.backward, tensors), dy.contiguous()
        # Of each state two, which take turns: the gradient that a step is given, and the one that it writes.
        turns = [(d.clone(memory_format=torch.contiguous_format), torch.empty_like(d)) for d in d_last]
        for block in blocks_backward(time):
            steps = range(time - block.stop, time - block.start)
            of_block = {
                "z": [z[block]],
                "state": [every[block] for every in kept],
                "keep": [] if keep is None else [keep[block]],
                "forward": [every[block] for every in outs],
                "back": [every[block] if len(every) == time else every[: len(steps)] for every in back],
                "d_y": [dy[block]],
            }
            program.backward(
                {
                    **{kind: [every.unbind(0)[::-1] for every in values] for kind, values in of_block.items()},
                    "tensor": tensors,
                    "cut": cuts,
                    "total": totals,
                    "d_state": [[turn[n % 2] for n in steps] for turn in turns],
                    "d_before": [[turn[1 - n % 2] for n in steps] for turn in turns],
                }
            )
            for k, gradient in enumerate(split.gradients):
                for (kind, rows), (other, columns), transposed in gradient if isinstance(gradient, list) else ():
                    sums[k] = add_product(
                        sums[k], of_block[kind][rows], of_block[other][columns], transposed=transposed
                    )
        gradients = (totals[g] if isinstance(g, int) else total for g, total in zip(split.gradients, sums, strict=True))
        return None, None, back[0] if split.d_z else None, *(turn[time % 2] for turn in turns), *gradients


def _cuts(split: SplitStep, half: HalfStep, tensors: list[Tensor]) -> list[Tensor | None]:
    """The weights in parts that ``half`` reads; None for those of the other half."""
    return [cut.of(tensors) if ("cut", k) in half.inputs else None for k, cut in enumerate(split.cuts)]


def _every_step(node: fx.Node, z: Tensor) -> Tensor:
    """Memory for what ``node`` is in each step of z [time, ...]."""
    like = node.meta["val"]
    return z.new_empty(len(z), *like.shape, dtype=like.dtype)
