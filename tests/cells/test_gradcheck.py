"""Gradients of every cell against finite differences: input, initial state and every parameter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import rnncore
from tests.cells.variants import VARIANTS, with_options
from tests.parity import leaves
from tests.strategies import CellSpec, randomize


def check_gradients(spec: CellSpec, *, fused: bool, reverse: bool, lengths: Tensor | None) -> None:
    layer = randomize(rnncore.Recurrent(spec.build(2), reverse=reverse, fused=fused).double(), seed=3)
    names = [name for name, _ in layer.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    random = torch.Generator().manual_seed(5)
    x = torch.randn(2, 4, 2, dtype=torch.float64, generator=random).requires_grad_()
    state = [
        torch.randn(part.shape, dtype=torch.float64, generator=random).requires_grad_()
        for part in layer.initial_state(2, x)
    ]

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        start = None if spec.options.get("learn_initial_state") else rest[: len(state)]
        parameters = dict(zip(names, rest[len(state) :], strict=True))
        y, end = functional_call(layer, parameters, (x, start, lengths))
        return (y, *leaves(end))

    assert torch.autograd.gradcheck(run, (x, *state, *values), fast_mode=True)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_match_finite_differences(name: str, reverse: bool) -> None:
    spec = with_options(VARIANTS[name], hidden_size=3)
    check_gradients(spec, fused=True, reverse=reverse, lengths=torch.tensor([4, 2]))
    check_gradients(spec, fused=False, reverse=reverse, lengths=torch.tensor([0, 3]))


@pytest.mark.parametrize("fused", [False, True], ids=["loop", "fused"])
@pytest.mark.parametrize("name", ["rnn tanh", "gru reset=after", "lstm", "lstm peephole=current", "min_lstm"])
def test_gradients_of_learned_initial_states(name: str, fused: bool) -> None:
    spec = with_options(VARIANTS[name], hidden_size=3, learn_initial_state=True)
    check_gradients(spec, fused=fused, reverse=False, lengths=torch.tensor([4, 0]))
