"""torch's fused kernels are an optimisation: every value and gradient is that of the loop over the cell's own step."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rnncore
from rnncore.layers.kernels import fused as fused_module
from rnncore.layers.kernels.fused import fused_kernel
from tests.cells.variants import VARIANTS
from tests.parity import assert_same, gradients
from tests.strategies import SEEDS, CellSpec, Inputs, inputs, randomize

ELIGIBLE = {
    "rnn tanh": CellSpec("rnn", 11, {"activation": "tanh"}),
    "rnn relu": CellSpec("rnn", 11, {"activation": "relu"}),
    "gru": CellSpec("gru", 11),
    "lstm": CellSpec("lstm", 11),
    "lstm projection": CellSpec("lstm", 11, {"projection": 2}),
}
OPTIONS = [{"bias": bias, "learn_initial_state": learned} for bias in (True, False) for learned in (False, True)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", ELIGIBLE)
@given(
    options=st.sampled_from(OPTIONS),
    reverse=st.booleans(),
    drawn=inputs(5, values=("plain", "denormal"), times=(13, 1, 2)),
    seed=SEEDS,
    most=st.sampled_from([4, 5, fused_module.MOST_PACKED]),
)
def test_fused_equals_loop(
    name: str, dtype: torch.dtype, options: dict[str, bool], reverse: bool, drawn: Inputs, seed: int, most: int
) -> None:
    """most: padded sequences of more steps run in pieces."""
    spec = CellSpec(ELIGIBLE[name].kind, 11, {**ELIGIBLE[name].options, **options})
    fused = randomize(rnncore.Recurrent(spec.build(5), reverse=reverse).to(dtype), seed)
    loop = rnncore.Recurrent(copy.deepcopy(fused.cell), reverse=reverse, fused=False)
    assert fused_kernel(fused.cell) is not None
    x, state, lengths = drawn.tensors(fused, dtype)
    with mock.patch.object(fused_module, "MOST_PACKED", most):
        got = gradients(fused, x, state, lengths)
    assert_same(got, gradients(loop, x, state, lengths), dtype, "gradient", depth=1, x=x)


def test_only_equal_equations_are_fused() -> None:
    fused = {name for name, spec in VARIANTS.items() if fused_kernel(spec.build(5)) is not None}
    assert fused == {"rnn tanh", "rnn relu", "gru reset=after", "lstm", "lstm projection=3"}


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("option", ["activation", "gate_activation"])
def test_other_activations_are_not_fused(kind: str, option: str) -> None:
    assert fused_kernel(CellSpec(kind, 11, {option: "hard_sigmoid"}).build(5)) is None


def test_subclass_is_not_fused_because_it_may_redefine_the_step() -> None:
    class Forgetful(rnncore.LSTMCell):
        def step(self, z, h, c):  # type: ignore[no-untyped-def]
            return super().step(z, 0.5 * h, c)

    layer, x = rnncore.Recurrent(Forgetful(5, 3)), torch.randn(2, 4, 5)
    assert fused_kernel(layer.cell) is None
    layer.fused = False
    assert not torch.allclose(layer(x)[0], rnncore.Recurrent(copy_as_lstm(layer.cell))(x)[0])


def copy_as_lstm(cell: rnncore.LSTMCell) -> rnncore.LSTMCell:
    plain = rnncore.LSTMCell(cell.input_size, cell.hidden_size)
    plain.load_state_dict(cell.state_dict())
    return plain


def test_training_step_with_retained_graph_and_second_backward() -> None:
    layer = randomize(rnncore.Recurrent(rnncore.LSTMCell(5, 3)), 0).train()
    x = torch.randn(2, 4, 5, requires_grad=True)
    y, _ = layer(x, None, torch.tensor([4, 2]))
    first = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(y.sum(), x)[0])
