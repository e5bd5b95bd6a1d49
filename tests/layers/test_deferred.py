"""Gradients taken out of the loop, or written by hand, are those of plain autograd, whatever is differentiated."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import rnncore
from rnncore.layers.kernels.gate_gradients import STEPS_AT_ONCE, blocks_backward
from tests.strategies import randomize
from tests.tolerances import fixed

INPUT, HIDDEN, BATCH = 3, 5, 7
TIME = 2 * STEPS_AT_ONCE + 3  # blocks of the gradient written by hand: two full ones, and a part of one

CELLS = {
    "peephole": lambda: rnncore.LSTMCell(INPUT, HIDDEN, peephole="current", learn_initial_state=True),
    "peephole, previous": lambda: rnncore.LSTMCell(INPUT, HIDDEN, peephole="previous", bias=False),
    "peephole, other activations": lambda: rnncore.LSTMCell(INPUT, HIDDEN, peephole="current", activation="softsign"),
    "coupled, projected": lambda: rnncore.LSTMCell(INPUT, HIDDEN, coupled=True, projection=2, peephole="previous"),
    "other activations": lambda: rnncore.LSTMCell(INPUT, HIDDEN, gate_activation="hard_sigmoid", bias=False),
    "layer norm": lambda: rnncore.LSTMCell(INPUT, HIDDEN, layer_norm=True, learn_initial_state=True),
    "layer norm, coupled": lambda: rnncore.LSTMCell(INPUT, HIDDEN, layer_norm=True, coupled=True),
    "rnn": lambda: rnncore.RNNCell(INPUT, HIDDEN, activation="softsign"),
}


def pair(name: str, reverse: bool) -> tuple[rnncore.Recurrent, rnncore.Recurrent]:
    cell = randomize(CELLS[name]().double(), seed=3)
    return rnncore.Recurrent(cell, reverse=reverse), rnncore.Recurrent(
        copy.deepcopy(cell), reverse=reverse, fused=False
    )


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(BATCH, TIME, INPUT, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return x.requires_grad_(), torch.tensor([TIME, 0, 1, STEPS_AT_ONCE, STEPS_AT_ONCE + 1, TIME, 2])


def loss(layer: rnncore.Recurrent, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    y, state = layer(x, lengths=lengths)
    weights = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).view_as(y)
    return (y * weights).sum() + sum((i + 2) * s.square().sum() for i, s in enumerate(state))


def gradients(layer: rnncore.Recurrent, x: torch.Tensor, lengths: torch.Tensor | None) -> dict[str, torch.Tensor]:
    names = ["x", *(name for name, _ in layer.named_parameters())]
    found = torch.autograd.grad(loss(layer, x, lengths), [x, *layer.parameters()])
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_values_are_those_of_the_plain_loop(name: str, reverse: bool, ragged: bool) -> None:
    fast, plain = pair(name, reverse)
    x, lengths = inputs()
    (y, state), (expected, last) = (layer(x, lengths=lengths if ragged else None) for layer in (fast, plain))
    for got, value in zip((y, *state), (expected, *last), strict=True):
        torch.testing.assert_close(got, value, rtol=fixed("float64"), atol=fixed("float64"))


@pytest.mark.parametrize("options", [{"peephole": "current"}, {"peephole": "previous"}, {"layer_norm": True}])
def test_the_gradient_written_by_hand_is_the_numerical_one(options: dict[str, Any]) -> None:
    layer = rnncore.Recurrent(randomize(rnncore.LSTMCell(2, 3, **options).double(), seed=7))
    x = torch.randn(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    names, weights = zip(*layer.named_parameters(), strict=True)

    def answers(x: torch.Tensor, *weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(names, weights, strict=True))
        y, state = torch.func.functional_call(layer, given, (x, None, torch.tensor([4, 2])))
        return (y, *state)

    assert torch.autograd.gradcheck(answers, (x, *weights))


@pytest.mark.parametrize("name", ["peephole", "layer norm"])
def test_what_a_caller_writes_into_a_result_does_not_reach_the_gradient(name: str) -> None:
    fast, plain = pair(name, False)
    found = []
    for layer in (fast, plain):
        x, _ = inputs()
        y, state = layer(x)
        y.detach().zero_()
        state[0].detach().zero_()
        found.append(torch.autograd.grad(state[1].sum(), x)[0])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_gradients_are_those_of_the_plain_loop(name: str, reverse: bool, ragged: bool) -> None:
    deferred, plain = pair(name, reverse)
    x, lengths = inputs()
    got, expected = (gradients(layer, x, lengths if ragged else None) for layer in (deferred, plain))
    for key, value in expected.items():
        torch.testing.assert_close(
            got[key],
            value,
            rtol=fixed("float64 gradient"),
            atol=fixed("float64 gradient"),
            msg=lambda m, key=key: f"{key}: {m}",
        )


@pytest.mark.parametrize(("name", "module"), [("peephole", "peephole"), ("layer norm", "layer_norm")])
def test_blocks_of_a_gradient_in_the_wrong_order_are_seen(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted fault: the tests above see only what they have enough steps for."""
    place = f"rnncore.layers.kernels.{module}.blocks_backward"
    monkeypatch.setattr(place, lambda time: reversed(list(blocks_backward(time))))
    by_hand, plain = pair(name, False)
    x, _ = inputs()
    got, expected = (gradients(layer, x, None) for layer in (by_hand, plain))
    assert (got["x"] - expected["x"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["peephole", "layer norm"])
def test_asking_for_some_gradients_leaves_nothing_behind(name: str) -> None:
    deferred, plain = pair(name, False)
    x, _ = inputs()
    value = loss(deferred, x, None)
    torch.autograd.grad(value, x, retain_graph=True)
    torch.autograd.grad(value, deferred.cell.weight_hh, retain_graph=True)
    (again,) = torch.autograd.grad(value, deferred.cell.weight_hh)
    torch.testing.assert_close(
        again,
        gradients(plain, x, None)["cell.weight_hh"],
        rtol=fixed("float64 gradient"),
        atol=fixed("float64 gradient"),
    )


def test_a_frozen_recurrent_weight_gets_no_gradient() -> None:
    deferred, _ = pair("peephole", False)
    deferred.cell.weight_hh.requires_grad_(False)
    x, _ = inputs()
    loss(deferred, x, None).backward()
    assert deferred.cell.weight_hh.grad is None and deferred.cell.weight_ih.grad is not None


def test_second_derivatives_need_the_plain_loop_and_say_so() -> None:
    deferred, plain = pair("peephole", False)
    x, _ = inputs()
    (first,) = torch.autograd.grad(loss(plain, x, None), x, create_graph=True)
    assert first.square().sum().requires_grad
    (first,) = torch.autograd.grad(loss(deferred, x, None), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


@pytest.mark.parametrize("name", ["peephole", "layer norm"])
def test_autocast_trains(name: str) -> None:
    layer = rnncore.Recurrent(CELLS[name]())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(torch.randn(BATCH, TIME, INPUT))[0].float().sum().backward()
    assert layer.cell.weight_hh.grad is not None and layer.cell.weight_hh.grad.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["peephole", "layer norm"])
def test_a_compiler_gets_the_plain_loop_and_the_same_gradients(name: str) -> None:
    _, plain = pair(name, False)
    layer = rnncore.Recurrent(copy.deepcopy(plain.cell))
    x = inputs()[0][:2, :3].detach().requires_grad_()
    found = []
    for run in (plain, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        y, state = run(x)
        found.append((y, *state, *torch.autograd.grad(y.square().sum() + state[0].sum(), x)))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=fixed("float64 gradient"), atol=fixed("float64 gradient"))
