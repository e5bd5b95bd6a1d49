"""Comparing what two things compute: values, states, gradients, each under its name, all differences at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import rnncore
from tests.tolerances import differences, largest_number

Arrays = dict[str, np.ndarray]


def leaves(state: Any) -> list[Any]:
    """The arrays of a nested state, in order."""
    if isinstance(state, tuple | list):
        return [leaf for part in state for leaf in leaves(part)]
    return [state]


def map_state(function: Callable[[Any], Any], state: Any) -> Any:
    """``function`` of every array of a nested state."""
    if isinstance(state, tuple | list):
        return tuple(map_state(function, part) for part in state)
    return function(state)


def as_array(value: Tensor | np.ndarray) -> np.ndarray:
    return value.detach().double().numpy() if isinstance(value, Tensor) else np.asarray(value)


def named(y: Any, state: Any, prefix: str = "") -> Arrays:
    """Output and states of a layer as named arrays."""
    states = {f"{prefix}state.{i}": as_array(leaf) for i, leaf in enumerate(leaves(state))}
    return {f"{prefix}y": as_array(y)} | states


def gradients(
    module: nn.Module,
    x: Tensor,
    state: Any = None,
    lengths: Tensor | None = None,
    *,
    run: Callable[..., Any] | None = None,
    weigh_padding: bool = True,
    seed: int = 0,
) -> Arrays:
    """Values, and gradients of a random weighted sum of every output and final state, by name.

    ``run`` stands in for ``module(x, state, lengths)``.  Parameters are taken from ``module``.
    """
    module.zero_grad(set_to_none=True)
    x = x.detach().clone().requires_grad_()
    if state is not None:
        state = map_state(lambda s: s.detach().clone().requires_grad_(), state)
    y, end = (run or module)(x, state, lengths)
    result = named(y, end)
    random = torch.Generator().manual_seed(seed)
    total = x.new_zeros(())
    for value in (y, *leaves(end)):
        total = total + (value * torch.randn(value.shape, generator=random, dtype=value.dtype)).sum()
    if total.requires_grad:
        total.backward()
    result["grad.x"] = as_array(torch.zeros_like(x) if x.grad is None else x.grad)
    for i, leaf in enumerate(leaves(state) if state is not None else ()):
        result[f"grad.state.{i}"] = as_array(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
    for name, p in module.named_parameters():
        result[f"grad.{name}"] = as_array(torch.zeros_like(p) if p.grad is None else p.grad)
    return result


def depth_of(module: nn.Module) -> int:
    """Layers on the longest way from input to output: what the tolerances call depth."""
    if isinstance(module, rnncore.Stacked):
        return sum(depth_of(layer) for layer in module.layers)
    return len(module) if isinstance(module, nn.Sequential) else 1


def assert_same(
    actual: Arrays, expected: Arrays, dtype: torch.dtype, kind: str, *, depth: int, x: Any, what: str = ""
) -> None:
    """Raise AssertionError that lists every array that differs by more than the table of tolerances allows.

    ``x`` [batch, time, features] is the input: its length and its largest number set the scale.
    """
    values = as_array(x)
    lines = differences(
        actual,
        expected,
        str(dtype).removeprefix("torch."),
        kind,
        depth=depth,
        length=values.shape[1],
        largest_input=largest_number(values),
    )
    assert not lines, "\n  ".join([f"{what or kind}: {len(lines)} differences", *lines])


def assert_matches_oracle(
    module: nn.Module, reference: Any, x: Tensor, state: Any = None, lengths: Tensor | None = None
) -> None:
    """Hold outputs and final states of ``module(x, state, lengths)`` to the oracle's network ``reference``."""
    with torch.no_grad():
        y, end = module(x, state, lengths)
    steps = [x.shape[1]] * x.shape[0] if lengths is None else lengths.tolist()
    start = reference.initial(x.shape[0]) if state is None else map_state(as_array, state)
    want_y, want_end = reference.run(as_array(x), start, steps)
    assert y.dtype == x.dtype, f"output has dtype {y.dtype}, the input {x.dtype}"
    assert_same(named(y, end), named(want_y, want_end), x.dtype, "oracle", depth=depth_of(module), x=x)
