"""Every cell and variant computes the equations of the notes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import rnncore
from rnncore.activations import ACTIVATIONS, activation_by_name
from tests.cells.variants import VARIANTS, example, with_options
from tests.oracle.adapt import oracle_of
from tests.oracle.functions import FUNCTIONS
from tests.parity import assert_matches_oracle, assert_same, map_state
from tests.strategies import GATES, CellSpec, randomize

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@DTYPES
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", VARIANTS)
def test_variant_matches_oracle(name: str, reverse: bool, dtype: torch.dtype) -> None:
    x, lengths = example(dtype)
    for bias, learned in ((True, False), (False, False), (True, True)):
        spec = with_options(VARIANTS[name], bias=bias, learn_initial_state=learned)
        layer = randomize(rnncore.Recurrent(spec.build(5), reverse=reverse).to(dtype), seed=len(name))
        reference = oracle_of(layer)
        given = map_state(lambda s: torch.linspace(-1, 1, s.numel(), dtype=dtype).view_as(s), layer.initial_state(7, x))
        assert_matches_oracle(layer, reference, x, given, lengths)
        assert_matches_oracle(layer, reference, x, None, lengths if learned else None)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_gate_activation_matches_oracle(kind: str, gate: str) -> None:
    x, lengths = example()
    options = {"reset": "before"} if kind == "gru" else {"peephole": "current"}
    layer = rnncore.Recurrent(CellSpec(kind, 11, {"gate_activation": gate, **options}).build(5)).double()
    assert_matches_oracle(layer, oracle_of(randomize(layer, 1)), 3 * x, None, lengths)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_activation_matches_oracle(kind: str, activation: str) -> None:
    x, lengths = example()
    layer = rnncore.Recurrent(CellSpec(kind, 11, {"activation": activation}).build(5)).double()
    assert_matches_oracle(layer, oracle_of(randomize(layer, 2)), 3 * x, None, lengths)


@DTYPES
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_is_its_textbook_definition(name: str, dtype: torch.dtype) -> None:
    denormal = [0.0, -0.0, 1e-310, -1e-310, 1e-40, -1e-40, 1e-3, -1e-3]
    for points in ([*denormal, *np.linspace(-7, 7, 101)], [20.5, -20.5, 1e4, -1e4]):
        v = torch.tensor(points, dtype=dtype).view(1, 1, -1)
        got, want = activation_by_name(name)(v), FUNCTIONS[name](v.double().numpy())
        assert_same({name: got.double().numpy()}, {name: want}, dtype, "function", depth=1, x=v)


def test_oracle_knows_every_activation() -> None:
    assert FUNCTIONS.keys() == ACTIVATIONS.keys()
