"""Zero, learned and given states before the first step."""

from __future__ import annotations

import pytest
import torch

import rnncore
from tests.cells.variants import VARIANTS, example, with_options
from tests.parity import leaves
from tests.strategies import randomize
from tests.tolerances import fixed


@pytest.mark.parametrize("name", VARIANTS)
def test_initial_state_is_zero_unless_learned(name: str) -> None:
    cell = randomize(VARIANTS[name].build(5), 0)
    like = torch.zeros(1, dtype=torch.float64)
    state = cell.initial_state(7, like)
    assert [tuple(s.shape) for s in state] == [(7, size) for size in cell.state_sizes.values()]
    assert all(s.dtype == torch.float64 and not s.any() for s in state)


@pytest.mark.parametrize("name", VARIANTS)
def test_learned_initial_state_starts_at_zero_and_has_one_parameter_a_state(name: str) -> None:
    cell = with_options(VARIANTS[name], learn_initial_state=True).build(5)
    learned = {n: tuple(p.shape) for n, p in cell.named_parameters() if n.startswith("initial_")}
    assert learned == {f"initial_{n}": (size,) for n, size in cell.state_sizes.items()}
    assert not any(p.any() for n, p in cell.named_parameters() if n.startswith("initial_"))


@pytest.mark.parametrize("name", VARIANTS)
def test_learned_state_equals_the_same_state_given_and_learns(name: str) -> None:
    x, lengths = example()
    layer = rnncore.Recurrent(with_options(VARIANTS[name], learn_initial_state=True).build(5)).double()
    randomize(layer, 4)
    given = tuple(s.detach().clone().requires_grad_() for s in layer.initial_state(7, x))
    (y, end), (y_given, end_given) = layer(x, None, lengths), layer(x, given, lengths)
    for a, b in zip(leaves((y, end)), leaves((y_given, end_given)), strict=True):
        assert torch.equal(a, b)
    (y.sum() + sum(e.sum() for e in end)).backward()
    learned = [getattr(layer.cell, f"initial_{n}").grad.clone() for n in layer.cell.state_sizes]
    (y_given.sum() + sum(e.sum() for e in end_given)).backward()
    for grad, start in zip(learned, given, strict=True):
        assert torch.allclose(grad, start.grad.sum(0), rtol=fixed("float64"), atol=fixed("float64"))
        assert grad.abs().min() > 0


@pytest.mark.parametrize("name", VARIANTS)
def test_reset_parameters_draws_within_torchs_bounds_and_leaves_learned_states(name: str) -> None:
    cell = with_options(VARIANTS[name], learn_initial_state=True).build(5)
    for parameter, value in cell.named_parameters():
        if parameter.startswith(("weight_", "bias_")):
            assert 0.1 * 11**-0.5 < value.abs().max() <= 11**-0.5
        if parameter.startswith("initial_"):
            assert not value.any()
