"""What every recurrent layer has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.cells.base import StateSize, state_shape
from rnncore.runtime.errors import InputError, StateError, raise_all

State = tuple[Any, ...]
"""State of a layer: a tuple of [batch, size] tensors, or of the states of the layers inside."""


class RecurrentLayer(nn.Module):
    """A layer with the one call shape of rnncore: ``(x, state=None, lengths=None) -> (y, state)``.

    ``x`` is [batch, time, input_size], ``y`` is [batch, time, output_size]; ``lengths`` is an integer tensor [batch] of
    valid steps, 0 to time.  At t >= length the state is held and the output is zero.
    """

    input_size: int
    output_size: int

    def initial_state(self, batch: int | torch.SymInt, like: Tensor) -> State:
        """State before the first step, dtype and device of ``like``."""
        raise NotImplementedError

    def check_input(self, x: Tensor) -> None:
        """Raise InputError unless ``x`` is [batch, time, input_size] and floating point."""
        name = type(self).__name__
        if not isinstance(x, Tensor):
            raise InputError(
                f"{name}: input is a {type(x).__name__}, expected a tensor [batch, time, {self.input_size}]"
            )
        if x.dim() != 3:
            hint = "; add a batch axis with x.unsqueeze(0)" if x.dim() == 2 else ""
            raise InputError(
                f"{name}: input has shape {tuple(x.shape)}, expected [batch, time, {self.input_size}]{hint}"
            )
        problems = []
        if x.shape[2] != self.input_size:
            problems.append(f"{name}: input has {x.shape[2]} features, the layer expects {self.input_size}")
        if not x.is_floating_point():
            problems.append(
                f"{name}: input has dtype {x.dtype}, expected floating point (use x.float() or an embedding)"
            )
        raise_all(problems)


def check_lengths(lengths: Tensor, x: Tensor, *, traced: bool = False) -> Tensor:
    """``lengths`` as int64 on the device of ``x``; raises InputError when they do not fit x [batch, time, ...]."""
    if not isinstance(lengths, Tensor):
        try:
            lengths = torch.as_tensor(lengths)
        except (TypeError, ValueError, RuntimeError):  # words, ragged lists, None among the numbers
            raise InputError(
                f"lengths is a {type(lengths).__name__} that is no array of integers, expected int64 counts of valid steps"
            ) from None
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise InputError(f"lengths has dtype {lengths.dtype}, expected int64 counts of valid steps")
    if lengths.dim() != 1:
        raise InputError(f"lengths has shape {tuple(lengths.shape)}, expected [batch]")
    if traced:
        return lengths.to(torch.int64)
    batch, time = x.shape[0], x.shape[1]
    if lengths.shape[0] != batch:
        raise InputError(f"lengths has {lengths.shape[0]} entries, the input has a batch of {batch}")
    if batch:
        low, high = (int(v) for v in torch.aminmax(lengths))
        if low < 0 or high > time:
            raise InputError(
                f"lengths are {low} to {high}, expected 0 to {time}, the number of time steps of the input"
            )
    return lengths.to(device=x.device, dtype=torch.int64)


def valid_steps(lengths: Tensor, time: int | torch.SymInt) -> Tensor:
    """Boolean [batch, time, 1]: True where t < length."""
    steps = torch.arange(time, device=lengths.device)  # type: ignore[arg-type]  # torch takes a SymInt
    return (steps.unsqueeze(0) < lengths.unsqueeze(1)).unsqueeze(2)


def check_state(state: State, expected: Mapping[str, StateSize], x: Tensor, owner: str) -> tuple[Tensor, ...]:
    """``state`` as a tuple of tensors; raises StateError unless it holds [batch, size] for every expected name."""
    if isinstance(state, Tensor):
        state = (state,)
    names = ", ".join(expected)
    if not isinstance(state, tuple | list) or len(state) != len(expected):
        got = f"{len(state)} entries" if isinstance(state, tuple | list) else f"a {type(state).__name__}"
        raise StateError(f"{owner}: state is {got}, expected {len(expected)} tensor(s): {names}")
    problems = []
    for value, (name, size) in zip(state, expected.items(), strict=True):
        if not isinstance(value, Tensor):
            problems.append(f"{owner}: state '{name}' is a {type(value).__name__}, expected a tensor")
        elif tuple(value.shape[1:]) != state_shape(size) or value.shape[0] != x.shape[0]:
            wanted = ", ".join(map(str, (x.shape[0], *state_shape(size))))
            problems.append(
                f"{owner}: state '{name}' has shape {tuple(value.shape)}, expected [{wanted}] (batch, size)"
            )
        elif value.dtype != x.dtype:
            problems.append(f"{owner}: state '{name}' has dtype {value.dtype}, the input has {x.dtype}")
    raise_all(problems, StateError)
    return tuple(state)
