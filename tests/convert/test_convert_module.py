"""convert(module) is a drop-in: state dicts, flags, sharing, attributes; and the module itself is left alone."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import rnncore
from rnncore.conversion import ConvertedLayer
from tests.convert.networks import MODES, OPTIONS, option_id, tagger
from tests.strategies import randomize
from tests.tolerances import fixed

EVERY = pytest.mark.parametrize("options", OPTIONS, ids=option_id)


@EVERY
def test_state_dict_has_torchs_keys_and_values_and_loads_both_ways(options: dict[str, Any]) -> None:
    theirs = tagger(options, seed=1)
    ours = rnncore.convert(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())

    other = tagger(options, seed=2).state_dict()
    ours.load_state_dict(other, strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert all(torch.equal(theirs.state_dict()[k], v) for k, v in other.items())


def test_whole_state_dict_keeps_its_order() -> None:
    theirs = nn.Sequential(nn.Embedding(3, 5), nn.LSTM(5, 11, 2, bidirectional=True), nn.Linear(22, 2))
    assert list(rnncore.convert(theirs).state_dict()) == list(theirs.state_dict())


def test_original_is_untouched() -> None:
    theirs = tagger({"mode": "lstm", "num_layers": 2})
    before, layer = {k: v.clone() for k, v in theirs.state_dict().items()}, theirs.rnn
    ours = rnncore.convert(theirs)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    assert theirs.rnn is layer and type(layer) is nn.LSTM
    assert all(torch.equal(theirs.state_dict()[k], v) for k, v in before.items())


def test_converting_draws_no_random_numbers() -> None:
    theirs, before = tagger({"mode": "gru", "num_layers": 2}), torch.get_rng_state()
    rnncore.convert(theirs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", MODES)
def test_requires_grad_and_training_flags_are_kept(mode: str) -> None:
    theirs = tagger({"mode": mode, "num_layers": 2, "bidirectional": True})
    theirs.rnn.weight_hh_l1_reverse.requires_grad_(False)
    theirs.rnn.bias_ih_l0.requires_grad_(False)
    theirs.train()
    theirs.rnn.eval()
    ours = rnncore.convert(theirs)
    want = {k: v.requires_grad for k, v in theirs.state_dict(keep_vars=True).items()}
    assert {k: v.requires_grad for k, v in ours.state_dict(keep_vars=True).items()} == want
    assert ours.training and not any(m.training for m in ours.rnn.modules())


def test_user_code_still_reads_its_layer() -> None:
    theirs = nn.LSTM(5, 11, 2, bidirectional=True, batch_first=True, dropout=0.1, proj_size=3)
    ours = rnncore.convert(theirs)
    names = [
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
        "proj_size",
        "mode",
    ]
    assert {n: getattr(ours, n) for n in names} == {n: getattr(theirs, n) for n in names}
    for name, value in theirs.named_parameters():
        assert torch.equal(getattr(ours, name), value), name
    ours.flatten_parameters()
    assert next(ours.parameters()).dtype == torch.float32
    assert [[w.shape for w in ws] for ws in ours.all_weights] == [[w.shape for w in ws] for ws in theirs.all_weights]
    assert rnncore.convert(nn.RNN(5, 11, nonlinearity="relu")).nonlinearity == "relu"
    with pytest.raises(AttributeError, match="weight_hh_l2"):
        _ = ours.weight_hh_l2
    with pytest.raises(AttributeError, match="bias_ih"):
        _ = rnncore.convert(nn.GRU(5, 11, bias=False)).bias_ih_l0


def test_user_code_still_writes_its_weights() -> None:
    ours, theirs = rnncore.convert(nn.GRU(5, 11)), nn.GRU(5, 11)
    fresh = nn.Parameter(torch.randn(33, 11))
    ours.weight_hh_l0 = fresh
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        ours.bias_ih_l0.fill_(0.5)
        theirs.bias_ih_l0.fill_(0.5)
    x = torch.randn(13, 7, 5)
    assert ours.stack.layers[0].cell.weight_hh is fresh
    assert torch.allclose(ours(x)[0], theirs(x)[0], atol=fixed("float32 same steps"))
    assert torch.equal(theirs.weight_hh_l0, fresh)


class Siamese(nn.Module):
    """One recurrent layer under three names, two of them in the same module."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.GRU(5, 11, batch_first=True)
        self.right = self.left
        self.towers = nn.ModuleDict({"again": self.left, "other": nn.GRU(5, 11, batch_first=True)})


def test_shared_layer_stays_shared() -> None:
    ours = rnncore.convert(Siamese())
    assert isinstance(ours.left, ConvertedLayer)
    assert ours.right is ours.left and ours.towers["again"] is ours.left and ours.towers["other"] is not ours.left
    assert not any(isinstance(m, nn.RNNBase) for m in ours.modules())
    theirs = Siamese()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))


def test_tied_parameters_stay_tied() -> None:
    theirs = nn.ModuleDict({"a": nn.GRU(5, 11, 2), "b": nn.GRU(5, 11), "table": nn.Embedding(33, 5)})
    theirs["b"].weight_hh_l0 = theirs["a"].weight_hh_l0
    theirs["a"].weight_hh_l1 = theirs["a"].weight_hh_l0
    theirs["b"].weight_ih_l0 = theirs["table"].weight
    ours = rnncore.convert(theirs)
    assert ours["b"].weight_hh_l0 is ours["a"].weight_hh_l0 is ours["a"].weight_hh_l1
    assert ours["b"].weight_ih_l0 is ours["table"].weight
    assert ours["a"].weight_hh_l0 is not theirs["a"].weight_hh_l0
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))


def test_nested_containers_and_modules_without_recurrence() -> None:
    theirs = nn.Sequential(nn.ModuleList([nn.ModuleDict({"x": nn.LSTM(5, 11)})]), nn.Linear(2, 3))
    ours = rnncore.convert(theirs)
    assert isinstance(ours[0][0]["x"], ConvertedLayer) and isinstance(ours[1], nn.Linear)
    assert torch.equal(rnncore.convert(theirs[1]).weight, theirs[1].weight)


@pytest.mark.parametrize("mode", MODES)
def test_copies_and_conversions_of_conversions(mode: str) -> None:
    ours = rnncore.convert(tagger({"mode": mode, "num_layers": 2, "bidirectional": True}))
    x = torch.randn(13, 7, 5, dtype=torch.float64)
    want = ours(x)[1]
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), rnncore.convert(ours)):
        assert torch.equal(twin(x)[1], want)
        twin.load_state_dict(randomize(twin, 5).state_dict())
        assert not torch.equal(twin(x)[1], want) and torch.equal(ours(x)[1], want)


def test_conversion_trains_like_the_original() -> None:
    torch.manual_seed(0)
    theirs = tagger({"mode": "lstm", "num_layers": 2, "bidirectional": True, "batch_first": True})
    ours, x = rnncore.convert(theirs), torch.randn(7, 13, 5, dtype=torch.float64)
    for module in (theirs, ours):
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            module(x)[0].pow(2).sum().backward()
            optimizer.step()
    assert all(
        torch.allclose(ours.state_dict()[k], v, atol=fixed("float64 sum")) for k, v in theirs.state_dict().items()
    )
