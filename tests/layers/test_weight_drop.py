"""Weight drop: recurrent weights that are missing for a whole call, whatever runs along time."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore import Bidirectional, GRUCell, LSTMCell, MinGRUCell, Recurrent, RNNCell, Zoneout
from rnncore.cells import Cell
from rnncore.runtime.errors import InputError
from tests.tolerances import fixed

CELLS = {
    "fused gru": lambda: GRUCell(3, 6),
    "fused lstm": lambda: LSTMCell(3, 6, projection=4),
    "gru in a loop": lambda: GRUCell(3, 6, reset="before"),
    "peepholes by hand": lambda: LSTMCell(3, 6, peephole="current"),
    "layer norm by hand": lambda: LSTMCell(3, 6, layer_norm=True),
    "gradient out of the loop": lambda: RNNCell(3, 6, activation="sigmoid"),
    "a cell inside": lambda: Zoneout(GRUCell(3, 6), 0.0),
}


def weight(cell: Cell) -> torch.nn.Parameter:
    return next(value for name, value in cell.named_parameters() if name.endswith("weight_hh"))


@given(kind=st.sampled_from(sorted(CELLS)), rate=st.sampled_from([0.3, 0.8]), seed=st.integers(0, 99))
def test_it_is_the_layer_whose_weights_are_missing(kind: str, rate: float, seed: int) -> None:
    """The mask is told by the gradient: it is zero where a weight has no part in the answer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = Recurrent(CELLS[kind](), reverse=bool(seed % 2), weight_drop=rate)
        x, lengths = torch.randn(5, 7, 3), torch.tensor([7, 0, 3, 7, 1])
        before = copy.deepcopy(layer.state_dict())
        y, state = layer(x, None, lengths)
        (y.square().sum() + sum(one.square().sum() for one in state)).backward()
    gradient = weight(layer.cell).grad
    assert gradient is not None
    kept = gradient != 0
    assert 0 < int(kept.sum()) < kept.numel()

    plain = copy.deepcopy(layer).eval()  # which drops nothing, so that the same weights can be missing by hand
    with torch.no_grad():
        weight(plain.cell).mul_(kept / (1 - rate))
    again, end = plain(x, None, lengths)
    torch.testing.assert_close((y, state), (again, end), rtol=fixed("float32"), atol=fixed("float32"))
    (again.square().sum() + sum(one.square().sum() for one in end)).backward()
    expected = weight(plain.cell).grad * kept / (1 - rate)
    torch.testing.assert_close(gradient, expected, rtol=fixed("float32 long"), atol=fixed("float32 long"))
    assert layer.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items()), "the layer has its own"


def test_both_directions_lose_weights_of_their_own_and_none_in_use() -> None:
    layer = Bidirectional(GRUCell(3, 5), GRUCell(3, 5), weight_drop=0.5)
    assert layer.forward_layer.weight_drop == layer.backward_layer.weight_drop == 0.5
    x = torch.randn(2, 9, 3)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    plain = Bidirectional(GRUCell(3, 5), GRUCell(3, 5))
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer.eval()(x)[0], plain(x)[0])


@pytest.mark.parametrize(
    "cell, rate, said",
    [
        (GRUCell(3, 4), 1.0, "below 1"),
        (GRUCell(3, 4), "much", "expected a number"),
        (MinGRUCell(3, 4), 0.5, "weight_hh"),
    ],
)
def test_what_cannot_be_dropped_is_refused(cell: Cell, rate: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Recurrent(cell, weight_drop=rate)
