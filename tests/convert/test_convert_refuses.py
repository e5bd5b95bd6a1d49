"""convert refuses what it would silently change, and converted layers refuse wrong input, by name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import rnncore
from rnncore.runtime.errors import InputError, StateError


class Zoneout(nn.LSTM):
    """A user's own subclass."""


class DeeperZoneout(Zoneout):
    """A subclass of the subclass."""


def with_old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():  # torch calls it deprecated, models that use it exist
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer, "weight_hh_l0")


def with_hook(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, arguments, result: (result[0] * 2, result[1]))
    return layer


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "subclass": (
        lambda: Zoneout(5, 11),
        r"is a Zoneout, a subclass of torch.nn.LSTM whose own behaviour would be lost",
    ),
    "subclass of a subclass": (lambda: DeeperZoneout(5, 11), r"is a DeeperZoneout, a subclass of torch.nn.LSTM"),
    "weight norm": (
        lambda: parametrizations.weight_norm(nn.LSTM(5, 11), "weight_hh_l0"),
        r"is a ParametrizedLSTM, a subclass of torch.nn.LSTM .*remove weight_norm and other parametrizations first",
    ),
    "old weight norm": (
        lambda: with_old_weight_norm(nn.GRU(5, 11)),
        r"has weight_hh_l0_g, weight_hh_l0_v in place of weight_hh_l0.*remove",
    ),
    "pruning": (
        lambda: prune.random_unstructured(nn.GRU(5, 11), "weight_ih_l0", amount=0.3),
        r"has weight_ih_l0_mask, weight_ih_l0_orig in place of weight_ih_l0.*remove",
    ),
    "forward hook": (lambda: with_hook(nn.RNN(5, 11)), r"has hooks, which would be lost.*remove them.*on the result"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layer_with_behaviour_of_its_own_is_refused_with_its_path(name: str) -> None:
    make, message = REFUSED[name]
    module = nn.ModuleDict({"encoder": nn.ModuleList([make()])})
    with pytest.raises(InputError, match=re.compile(r"'encoder\.0' " + message, re.DOTALL)):
        rnncore.convert(module)
    with pytest.raises(InputError, match=re.compile(message, re.DOTALL)):
        rnncore.convert(make())


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(InputError, match=r"module is a function, expected a torch.nn.Module"):
        rnncore.convert(with_hook)


X = torch.randn(13, 7, 5)
BAD_CALLS: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "vector": (X[0, 0], None, InputError, r"shape \(5,\), expected \[time, batch, 5\], unbatched \[time, 5\]"),
    "four axes": (X[None], None, InputError, r"shape \(1, 13, 7, 5\), expected \[time, batch, 5\]"),
    "list": (X.tolist(), None, InputError, r"input is a list, expected a tensor or a PackedSequence"),
    "width": (X[..., :3], None, InputError, r"input has 3 features, the layer expects 5"),
    "dtype": (X.double(), None, InputError, r"dtype torch.float64, the weights have torch.float32"),
    "integers": (X.long(), None, InputError, r"dtype torch.int64, expected floating point"),
    "one state of two": (X, torch.zeros(4, 7, 11), StateError, r"hx is a Tensor, expected \(h, c\)"),
    "one state in a tuple": (X, (torch.zeros(4, 7, 11),), StateError, r"hx has 1 entries, expected \(h, c\)"),
    "too few layers": (X, (torch.zeros(3, 7, 11),) * 2, StateError, r"h has shape \(3, 7, 11\), expected \[4, 7, 11\]"),
    "batch": (X, (torch.zeros(4, 2, 11),) * 2, StateError, r"h has shape \(4, 2, 11\), expected \[4, 7, 11\]"),
    "width of c": (
        X,
        (torch.zeros(4, 7, 11), torch.zeros(4, 7, 3)),
        StateError,
        r"c has shape \(4, 7, 3\), expected \[4, 7, 11\] \(layers \* directions, batch, size\)",
    ),
    "unbatched state": (X, (torch.zeros(4, 11),) * 2, StateError, r"h has shape \(4, 11\), expected \[4, 7, 11\]"),
    "batched state": (
        X[:, 0],
        (torch.zeros(4, 1, 11),) * 2,
        StateError,
        r"h has shape \(4, 1, 11\), expected \[4, 11\]",
    ),
    "state dtype": (
        X,
        (torch.zeros(4, 7, 11).double(),) * 2,
        StateError,
        r"dtype torch.float64, the input has torch.float32",
    ),
    "state list": (X, [[0.0], [0.0]], StateError, r"h is a list, expected a tensor"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_wrong_call_of_a_converted_layer_is_refused(name: str) -> None:
    x, hx, error, message = BAD_CALLS[name]
    layer = rnncore.convert(nn.LSTM(5, 11, 2, bidirectional=True))
    with pytest.raises(error, match=message):
        layer(x, hx)
    assert layer(X)[0].shape == (13, 7, 22)


def test_wrong_call_of_a_converted_layer_without_memory() -> None:
    layer = rnncore.convert(nn.GRU(5, 11, batch_first=True))
    with pytest.raises(StateError, match=r"hx is a tuple, expected h"):
        layer(X.transpose(0, 1), (torch.zeros(1, 7, 11),))
    with pytest.raises(InputError, match=r"expected \[batch, time, 5\], unbatched \[time, 5\]"):
        layer(X[None])
