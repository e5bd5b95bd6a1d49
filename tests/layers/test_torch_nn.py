"""rnncore.RNN, GRU and LSTM load the state dicts of torch.nn's and compute the same, packed sequences included."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnncore
from tests.parity import assert_same, gradients, map_state, named
from tests.strategies import randomize

MODES: dict[str, tuple[type[nn.RNNBase], type[rnncore.Stacked], dict[str, Any]]] = {
    "rnn tanh": (nn.RNN, rnncore.RNN, {"nonlinearity": "tanh"}),
    "rnn relu": (nn.RNN, rnncore.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, rnncore.GRU, {}),
    "lstm": (nn.LSTM, rnncore.LSTM, {}),
    "lstm proj_size": (nn.LSTM, rnncore.LSTM, {"proj_size": 2}),
}
ALL_OPTIONS = pytest.mark.parametrize(
    ("mode", "num_layers", "bidirectional", "bias"),
    list(product(MODES, (1, 2), (False, True), (True, False))),
    ids=lambda value: str(value),
)


def pair(mode: str, dtype: torch.dtype = torch.float64, **options: Any) -> tuple[nn.RNNBase, rnncore.Stacked]:
    theirs_type, ours_type, more = MODES[mode]
    theirs = randomize(theirs_type(5, 11, batch_first=True, **more, **options).to(dtype), 8)
    ours = ours_type(5, 11, **more, **options).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def test_projection_is_proj_size_by_the_name_of_the_cell() -> None:
    layer = rnncore.LSTM(5, 11, projection=2)
    assert layer.output_size == rnncore.LSTM(5, 11, proj_size=2, projection=2).output_size == 2
    layer.load_state_dict(nn.LSTM(5, 11, proj_size=2).state_dict())


def torch_state(state: Any, bidirectional: bool) -> tuple[Tensor, ...]:
    """rnncore's nested state as torch's [layers * directions, batch, size] tensors."""
    cells = [cell for layer in state for cell in layer] if bidirectional else state
    return tuple(torch.stack(parts) for parts in zip(*cells, strict=True))


def random_state(ours: rnncore.Stacked, x: Tensor) -> Any:
    torch.manual_seed(9)
    return map_state(lambda s: torch.randn(s.shape, dtype=s.dtype), ours.initial_state(x.shape[0], x))


@ALL_OPTIONS
def test_equals_torch(mode: str, num_layers: int, bidirectional: bool, bias: bool) -> None:
    theirs, ours = pair(mode, num_layers=num_layers, bidirectional=bidirectional, bias=bias)
    x = torch.randn(7, 13, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for state in (None, random_state(ours, x)):
        hx = None if state is None else torch_state(state, bidirectional)
        y, end = theirs(x, hx if hx is None or len(hx) == 2 else hx[0])
        got_y, got_end = ours(x, state)
        want = named(y, end)
        assert_same(named(got_y, torch_state(got_end, bidirectional)), want, x.dtype, "torch", depth=num_layers, x=x)


@ALL_OPTIONS
def test_lengths_equal_packed_sequences(mode: str, num_layers: int, bidirectional: bool, bias: bool) -> None:
    theirs, ours = pair(mode, num_layers=num_layers, bidirectional=bidirectional, bias=bias)
    x = torch.randn(7, 13, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([3, 13, 1, 12, 1, 7, 2])  # no 0: torch cannot pack it
    state = random_state(ours, x)
    hx = torch_state(state, bidirectional)
    packed, end = theirs(
        pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), hx if len(hx) == 2 else hx[0]
    )
    y, _ = pad_packed_sequence(packed, batch_first=True, total_length=13)
    for fused in (True, False):
        for layer in ours.modules():
            if isinstance(layer, rnncore.Recurrent):
                layer.fused = fused
        got_y, got_end = ours(x, state, lengths)
        got = named(got_y, torch_state(got_end, bidirectional))
        assert_same(got, named(y, end), x.dtype, "torch", depth=num_layers, x=x)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_gradients_equal_torch(mode: str, bidirectional: bool) -> None:
    theirs, ours = pair(mode, num_layers=2, bidirectional=bidirectional)
    x = torch.randn(7, 13, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def in_torchs_form(x: Tensor, state: Any, lengths: Any) -> Any:
        y, end = ours(x, state, lengths)
        return y, torch_state(end, bidirectional)

    got = gradients(ours, x, run=in_torchs_form)
    inside = {f"grad.{new}": f"grad.{old}" for old, new in ours.torch_names.items()}
    got = {inside.get(name, name): value for name, value in got.items()}
    want = gradients(theirs, x, run=lambda x, state, lengths: theirs(x))
    assert_same(got, want, x.dtype, "gradient", depth=2, x=x)


@pytest.mark.parametrize("mode", MODES)
def test_equals_torch_in_float32(mode: str) -> None:
    theirs, ours = pair(mode, torch.float32, num_layers=2, bidirectional=True)
    x = torch.randn(7, 13, 5, generator=torch.Generator().manual_seed(4))
    y, end = theirs(x)
    got_y, got_end = ours(x)
    assert_same(named(got_y, torch_state(got_end, True)), named(y, end), x.dtype, "torch", depth=2, x=x)


@pytest.mark.parametrize("mode", MODES)
def test_own_and_torch_state_dicts_load_inside_another_module(mode: str) -> None:
    theirs, ours = pair(mode, num_layers=2, bidirectional=True)
    _, fresh = pair(mode, num_layers=2, bidirectional=True)
    for source in (theirs, ours):
        nested = nn.ModuleDict({"encoder": randomize(fresh, 1)})
        nested.load_state_dict({f"encoder.{name}": value for name, value in source.state_dict().items()})
        for name, value in ours.state_dict().items():
            assert torch.equal(nested["encoder"].state_dict()[name], value), name


def test_state_dict_of_another_shape_is_refused_by_torch() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        rnncore.LSTM(5, 11).load_state_dict(nn.LSTM(5, 11, bias=False).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        rnncore.LSTM(5, 11).load_state_dict(nn.GRU(5, 11).state_dict())


def test_variants_and_dtype_reach_the_cells() -> None:
    layer = rnncore.LSTM(5, 11, 2, bidirectional=True, dtype=torch.float64, peephole="previous", coupled=True)
    for inner in layer.layers:
        for one in (inner.forward_layer, inner.backward_layer):
            assert (one.cell.peephole, one.cell.coupled) == ("previous", True)
            assert one.cell.weight_ih.dtype == torch.float64
    assert rnncore.GRU(5, 11, reset="before").layers[0].cell.reset == "before"
    assert rnncore.RNN(5, 11, learn_initial_state=True).layers[0].cell.initial_h.shape == (11,)
