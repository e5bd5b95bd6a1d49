"""What layers say to wrong input: a documented class; what was wrong, what was expected, what to do; still usable after."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rnncore
from rnncore.runtime.errors import InputError, StateError
from tests.tolerances import fixed

X = torch.randn(7, 13, 5, generator=torch.Generator().manual_seed(0))
LAYERS: dict[str, Callable[[], rnncore.RecurrentLayer]] = {
    "recurrent fused": lambda: rnncore.Recurrent(rnncore.LSTMCell(5, 11)),
    "recurrent loop": lambda: rnncore.Recurrent(rnncore.LSTMCell(5, 11, peephole="current")),
    "recurrent minimal": lambda: rnncore.Recurrent(rnncore.MinGRUCell(5, 11)),
    "bidirectional": lambda: rnncore.Bidirectional(rnncore.GRUCell(5, 11), rnncore.GRUCell(5, 3)),
    "stacked": lambda: rnncore.Stacked([rnncore.Recurrent(rnncore.GRUCell(5, 11)), nn.Linear(11, 3)]),
    "gru": lambda: rnncore.GRU(5, 11, 2, bidirectional=True),
}

BAD_X: dict[str, tuple[Any, str]] = {
    "one row without batch": (
        X[0],
        r"shape \(13, 5\), expected \[batch, time, 5\]; add a batch axis with x.unsqueeze\(0\)",
    ),
    "one vector": (X[0, 0], r"shape \(5,\), expected \[batch, time, 5\]"),
    "four axes": (X[None], r"shape \(1, 7, 13, 5\), expected \[batch, time, 5\]"),
    "width": (X[..., :4], r"input has 4 features, the layer expects 5"),
    "width of nothing": (X[:, :0, :4], r"input has 4 features, the layer expects 5"),
    "time and feature exchanged": (X.transpose(1, 2), r"input has 13 features, the layer expects 5"),
    "integers": (X.long(), r"dtype torch.int64, expected floating point \(use x.float\(\) or an embedding\)"),
    "bools": (X > 0, r"dtype torch.bool, expected floating point"),
    "complex": (X.to(torch.complex64), r"dtype torch.complex64, expected floating point"),
    "width and dtype at once": (X[..., :4].int(), r"(?s)2 problems.*4 features.*dtype torch.int32"),
    "float64 into float32 weights": (X.double(), r"dtype torch.float64, the weights have torch.float32 \(use x.to"),
    "float16 into float32 weights": (X[:, :0].half(), r"dtype torch.float16, the weights have torch.float32"),
    "array": (X.numpy(), r"input is a ndarray, expected a tensor \[batch, time, 5\]"),
    "list": (X.tolist(), r"input is a list, expected a tensor"),
    "none": (None, r"input is a NoneType, expected a tensor"),
}

BAD_LENGTHS: dict[str, tuple[Any, str]] = {
    "too few": (torch.tensor([1, 2]), r"lengths has 2 entries, the input has a batch of 7"),
    "too many": (torch.ones(8, dtype=torch.int64), r"lengths has 8 entries, the input has a batch of 7"),
    "negative": (torch.tensor([3, -1, 3, 3, 3, 3, 3]), r"lengths are -1 to 3, expected 0 to 13"),
    "beyond the input": (torch.tensor([3, 14, 3, 3, 3, 3, 3]), r"lengths are 3 to 14, expected 0 to 13"),
    "float": (torch.full((7,), 3.0), r"lengths has dtype torch.float32, expected int64 counts"),
    "nan": (torch.full((7,), float("nan")), r"lengths has dtype torch.float32, expected int64 counts"),
    "nan in a list": ([3.0, float("nan"), 3, 3, 3, 3, 3], r"lengths has dtype torch.float32, expected int64 counts"),
    "bool mask": (torch.ones(7, dtype=torch.bool), r"lengths has dtype torch.bool, expected int64 counts"),
    "two axes": (torch.ones(7, 1, dtype=torch.int64), r"lengths has shape \(7, 1\), expected \[batch\]"),
    "one number": (3, r"lengths has shape \(\), expected \[batch\]"),
    "words": (["a", "b"], r"lengths is a list that is no array of integers, expected int64 counts"),
    "ragged": ([[1], [2, 3]], r"lengths is a list that is no array of integers, expected int64 counts"),
}


def expect_usable(layer: rnncore.RecurrentLayer) -> None:
    y, _ = layer(X, None, torch.tensor([3, 0, 13, 1, 2, 5, 7]))
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("problem", BAD_X)
@pytest.mark.parametrize("kind", LAYERS)
def test_wrong_input_is_refused(kind: str, problem: str) -> None:
    layer, (x, message) = LAYERS[kind](), BAD_X[problem]
    with pytest.raises(InputError, match=message):
        layer(x)
    expect_usable(layer)


@pytest.mark.parametrize("problem", BAD_LENGTHS)
@pytest.mark.parametrize("kind", LAYERS)
def test_wrong_lengths_are_refused(kind: str, problem: str) -> None:
    layer, (lengths, message) = LAYERS[kind](), BAD_LENGTHS[problem]
    with pytest.raises(InputError, match=message):
        layer(X, None, lengths)
    expect_usable(layer)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("shape", [(7, 0, 5), (0, 13, 5)])
def test_wrong_lengths_are_refused_on_empty_input(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="lengths"):
        LAYERS[kind]()(torch.zeros(shape), None, torch.full((7,), 1))


@pytest.mark.parametrize(
    "lengths",
    [[3] * 7, (3,) * 7, np.full(7, 3), np.full(7, 3, np.int32), torch.full((7,), 3, dtype=torch.uint8)],
    ids=["list", "tuple", "array", "int32", "uint8"],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_integers_of_any_kind_are_lengths(kind: str, lengths: Any) -> None:
    layer = LAYERS[kind]().eval()
    assert torch.equal(layer(X, None, lengths)[0], layer(X, None, torch.full((7,), 3))[0])


H, C = torch.zeros(7, 11), torch.zeros(7, 11)
BAD_STATES: dict[str, tuple[Any, str]] = {
    "one tensor for two states": (H, r"LSTMCell: state is 1 entries, expected 2 tensor\(s\): h, c"),
    "too few": ((H,), r"state is 1 entries, expected 2 tensor\(s\): h, c"),
    "too many": ((H, C, C), r"state is 3 entries, expected 2"),
    "nothing": ((), r"state is 0 entries, expected 2"),
    "a dict": ({"h": H, "c": C}, r"state is a dict, expected 2 tensor\(s\): h, c"),
    "a string": ("zero", r"state is a str, expected 2"),
    "batch": ((H[:3], C), r"state 'h' has shape \(3, 11\), expected \[7, 11\] \(batch, size\)"),
    "width": ((H, C[:, :4]), r"state 'c' has shape \(7, 4\), expected \[7, 11\]"),
    "rank, as torch has it": ((H[None], C[None]), r"(?s)2 problems.*'h' has shape \(1, 7, 11\).*'c' has shape"),
    "dtype": ((H, C.double()), r"state 'c' has dtype torch.float64, the input has torch.float32"),
    "array": ((H.numpy(), C), r"state 'h' is a ndarray, expected a tensor"),
    "none inside": ((H, None), r"state 'c' is a NoneType, expected a tensor"),
    "of a bidirectional layer": (((H, C), (H, C)), r"state 'h' is a tuple, expected a tensor"),
    "of another layer": ((torch.zeros(7, 3), torch.zeros(7, 3)), r"(?s)2 problems.*'h'.*\(7, 3\).*\[7, 11\]"),
}


@pytest.mark.parametrize("time", [13, 0])
@pytest.mark.parametrize("problem", BAD_STATES)
@pytest.mark.parametrize("kind", ["recurrent fused", "recurrent loop"])
def test_wrong_state_is_refused(kind: str, problem: str, time: int) -> None:
    layer, (state, message) = LAYERS[kind](), BAD_STATES[problem]
    with pytest.raises(StateError, match=message):
        layer(X[:, :time], state)
    expect_usable(layer)


BAD_NESTED: dict[str, tuple[str, Any, str]] = {
    "bidirectional, one tensor": (
        "bidirectional",
        H,
        r"Bidirectional: state must be the pair \(forward state, backward",
    ),
    "bidirectional, one state": ("bidirectional", (H,), r"state must be the pair"),
    "bidirectional, three": ("bidirectional", (H, H, H), r"state must be the pair"),
    "bidirectional, exchanged": (
        "bidirectional",
        ((torch.zeros(7, 3),), (H,)),
        r"'h' has shape \(7, 3\), expected \[7, 11\]",
    ),
    "stacked, one tensor": ("stacked", H, r"Stacked: state has Tensor entries|Stacked: state is a Tensor"),
    "stacked, too few": ("stacked", ((H,),), r"state has 1 entries, expected one for each of its 2 layers"),
    "stacked, flat": ("stacked", (H, H, H), r"state has 3 entries, expected one for each of its 2 layers"),
    "gru, of one layer": ("gru", (((H,), (H,)),), r"state has 1 entries, expected one for each of its 2 layers"),
    "gru, as torch has it": (
        "gru",
        torch.zeros(4, 7, 11),
        r"GRU: state is a Tensor, expected one for each of its 2 layers",
    ),
}


@pytest.mark.parametrize("problem", BAD_NESTED)
def test_wrong_nested_state_is_refused(problem: str) -> None:
    kind, state, message = BAD_NESTED[problem]
    layer = LAYERS[kind]()
    with pytest.raises(StateError, match=message):
        layer(X, state)
    expect_usable(layer)


CELL = rnncore.GRUCell(5, 11)
BAD_CONSTRUCTION: dict[str, tuple[Callable[[], object], str]] = {
    "recurrent of no cell": (lambda: rnncore.Recurrent(nn.Linear(5, 11)), r"cell is a Linear, expected a rnncore Cell"),
    "recurrent of a subclass of torch's cell": (
        lambda: rnncore.Recurrent(type("Mine", (nn.GRUCell,), {})(5, 11)),
        r"cell is a Mine with behaviour of its own",
    ),
    "recurrent of a class": (lambda: rnncore.Recurrent(rnncore.GRUCell), r"cell is a type, expected a rnncore Cell"),
    "bidirectional of one cell": (lambda: rnncore.Bidirectional(CELL, CELL), r"share one cell object; pass two cells"),
    "bidirectional widths": (
        lambda: rnncore.Bidirectional(CELL, rnncore.GRUCell(3, 11)),
        r"forward cell takes 5 features, backward cell 3; both read the same input",
    ),
    "bidirectional of no cell": (lambda: rnncore.Bidirectional(CELL, nn.Linear(5, 11)), r"cell is a Linear"),
    "stack of nothing": (lambda: rnncore.Stacked([]), r"first layer of Stacked must be a recurrent layer, such as"),
    "stack of feed-forward": (
        lambda: rnncore.Stacked([nn.Linear(5, 3)]),
        r"first layer of Stacked must be a recurrent",
    ),
    "stack of cells": (lambda: rnncore.Stacked([CELL]), r"layer 0 is a GRUCell, .*wrap it: Recurrent\(cell\)"),
    "stack of torch's layers": (
        lambda: rnncore.Stacked([rnncore.Recurrent(CELL), nn.LSTM(11, 3)]),
        r"layer 1 is a torch.nn.LSTM, .*rnncore.LSTM",
    ),
    "stack of numbers": (lambda: rnncore.Stacked([rnncore.Recurrent(CELL), 3]), r"layer 1 is a int, expected a module"),
    "stack of a layer": (lambda: rnncore.Stacked(rnncore.Recurrent(CELL)), r"layers is a Recurrent, expected a list"),
    "stack widths": (
        lambda: rnncore.Stacked([rnncore.Recurrent(CELL), rnncore.Recurrent(rnncore.GRUCell(3, 2))]),
        r"Recurrent gives 11 features, the Recurrent above it takes 3",
    ),
    "stack widths, linear above": (
        lambda: rnncore.Stacked([rnncore.Recurrent(CELL), nn.Linear(3, 2)]),
        r"Recurrent gives 11 features, the Linear above it takes 3",
    ),
    "stack widths, linear below": (
        lambda: rnncore.Stacked([rnncore.Recurrent(CELL), nn.Linear(11, 2), rnncore.Recurrent(rnncore.GRUCell(3, 2))]),
        r"Linear gives 2 features, the Recurrent above it takes 3",
    ),
    "dropout above one": (lambda: rnncore.GRU(5, 11, dropout=1.5), r"dropout is 1\.5, expected 0 to 1"),
    "dropout negative": (lambda: rnncore.GRU(5, 11, dropout=-0.1), r"dropout is -0\.1, expected 0 to 1"),
    "dropout nan": (lambda: rnncore.GRU(5, 11, dropout=float("nan")), r"dropout is nan, expected 0 to 1"),
    "dropout string": (lambda: rnncore.GRU(5, 11, dropout="0.5"), r"dropout is '0\.5', expected 0 to 1"),
    "no layers": (lambda: rnncore.LSTM(5, 11, 0), r"num_layers is 0, expected an integer of at least 1"),
    "layers string": (lambda: rnncore.LSTM(5, 11, "2"), r"num_layers is '2', expected an integer of at least 1"),
    "layers float": (lambda: rnncore.LSTM(5, 11, 2.0), r"num_layers is 2\.0, expected an integer of at least 1"),
    "time first": (lambda: rnncore.RNN(5, 11, batch_first=False), r"batch first.*transpose the input.*rnncore.convert"),
    "nonlinearity": (lambda: rnncore.RNN(5, 11, nonlinearity="tan"), r"unknown activation 'tan'; known"),
    "hidden size": (lambda: rnncore.LSTM(5, 0), r"hidden_size is 0, expected an integer"),
    "proj_size and projection": (
        lambda: rnncore.LSTM(5, 7, proj_size=3, projection=2),
        r"proj_size is 3 and projection is 2, which are the same: give one",
    ),
    "proj_size": (lambda: rnncore.LSTM(5, 3, proj_size=3), r"projection is 3, expected 1 to hidden_size - 1 = 2"),
}


@pytest.mark.parametrize("problem", BAD_CONSTRUCTION)
def test_wrong_construction_is_refused(problem: str) -> None:
    make, message = BAD_CONSTRUCTION[problem]
    with pytest.raises(InputError, match=re.compile(message, re.DOTALL)):
        make()


def test_nan_in_valid_steps_is_an_answer_not_an_error() -> None:
    x = X.clone()
    x[2, 5] = float("nan")
    y, _ = LAYERS["recurrent loop"]()(x)
    assert torch.isnan(y[2, 5:]).all() and torch.isfinite(y[2, :5]).all() and torch.isfinite(y[3:]).all()


def test_autocast_is_not_taken_for_a_wrong_dtype() -> None:
    layer = LAYERS["recurrent loop"]()
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(X.to(torch.bfloat16))
    assert torch.allclose(y.float(), layer(X)[0], atol=fixed("bfloat16"))
