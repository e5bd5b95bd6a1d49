"""What the gates of a cell do, step by step: recorded from the very step that trains and exports."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rnncore.cells import Cell, GRUCell, LSTMCell, MinGRUCell, RNNCell
from rnncore.runtime.errors import InputError

Recording = dict[str, Tensor]
"""Name of a gate or state -> its values [batch, time, size]."""

# What the calls of a step to its gate function and to its activation compute, in order; None is not shown.  A name with a
# slash stands for blocks side by side.
_CALLS: dict[type[Cell], Callable[[Any], list[str | None]]] = {
    LSTMCell: lambda cell: ["forget", *([] if cell.coupled else ["input"]), "candidate", "output", None],
    GRUCell: lambda cell: ["update" if cell.reset is None else "reset/update", "candidate"],
    RNNCell: lambda cell: [None],
}


@torch.no_grad()
def gates(cell: Cell, x: Tensor, state: tuple[Tensor, ...] | None = None) -> Recording:
    """Run ``cell`` over ``x`` and record every gate, candidate and state, after each step.

    ============================== ====================================================================================
    cell                           names (those of the notes)
    ============================== ====================================================================================
    LSTMCell                       input (Γu; absent when coupled), forget (Γf), candidate (c̃), output (Γo), c, h
    GRUCell                        reset (Γr; absent with reset=None), update (torch's z, 1 - Γu), candidate (c̃), h
    MinGRUCell, MinLSTMCell        keep (what the old state is multiplied by), added (what is added to it), h
    RNNCell, and any other cell    its states only
    ============================== ====================================================================================

    The values are those that the cell's own ``step`` computes: there is no second definition that could differ.

    Args:
        cell: on any device; left as it is.
        x: [batch, time, cell.input_size].
        state: before the first step, each [batch, size]; the cell's initial state unless given.

    Returns:
        each [batch, time, size], in the order of the table.

    Raises:
        InputError: x has another rank or width.
    """
    if x.dim() != 3 or x.shape[2] != cell.input_size:
        raise InputError(f"x has shape {tuple(x.shape)}, expected [batch, time, {cell.input_size}]")
    names = next((calls(cell) for kind, calls in _CALLS.items() if type(cell) is kind), [])
    twin, calls = _listening(cell)
    z_steps = cell.project(x).unbind(1)
    now = cell.initial_state(x.shape[0], x) if state is None else tuple(state)
    steps: list[dict[str, Tensor]] = []
    for z in z_steps:
        calls.clear()
        _, *new = twin.step(z, *now)
        now = tuple(new)
        step = _named(names, calls)
        if isinstance(cell, MinGRUCell):
            step["keep"], step["added"] = z.chunk(2, 1)
        steps.append({**step, **dict(zip(cell.state_sizes, now, strict=True))})
    order = [name for name in _ORDER if steps and name in steps[0]]
    order += [name for name in cell.state_sizes if name not in order]
    return {name: torch.stack([step[name] for step in steps], 1) for name in order} if steps else {}


_ORDER = ("reset", "input", "forget", "update", "keep", "candidate", "added", "output", "c", "h")


def _listening(cell: Cell) -> tuple[Cell, list[Tensor]]:
    """A shallow copy of a cell (the same weights), and the list that its activation functions write to."""
    twin = copy.copy(cell)
    calls: list[Tensor] = []

    def listening(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def wrapped(value: Tensor) -> Tensor:
            result = function(value)
            calls.append(result)
            return result

        return wrapped

    for name in ("_gate", "_activate"):
        if name in vars(cell):
            vars(twin)[name] = listening(vars(cell)[name])
    return twin, calls


def _named(names: list[str | None], calls: list[Tensor]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for name, value in zip(names, calls, strict=False):
        if name is not None:
            parts = name.split("/")
            named.update(zip(parts, value.chunk(len(parts), 1), strict=True))
    return named
