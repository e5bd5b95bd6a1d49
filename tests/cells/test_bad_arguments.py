"""What constructors of cells say to wrong arguments: a documented class, what was wrong, what was expected."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import rnncore

BAD: dict[str, tuple[Callable[[], object], str]] = {
    "input size zero": (lambda: rnncore.RNNCell(0, 3), r"input_size is 0, expected an integer of at least 1"),
    "input size float": (lambda: rnncore.GRUCell(2.0, 3), r"input_size is 2\.0, expected an integer"),
    "input size bool": (lambda: rnncore.MinGRUCell(True, 3), r"input_size is True, expected an integer"),
    "hidden size zero": (lambda: rnncore.LSTMCell(2, 0), r"hidden_size is 0, expected an integer of at least 1"),
    "hidden size negative": (lambda: rnncore.RNNCell(2, -3), r"hidden_size is -3, expected an integer"),
    "hidden size string": (lambda: rnncore.GRUCell(2, "3"), r"hidden_size is '3', expected an integer"),
    "hidden size none": (lambda: rnncore.MinLSTMCell(2, None), r"hidden_size is None, expected an integer"),
    "hidden size string with projection": (
        lambda: rnncore.LSTMCell(2, "5", projection=3),
        r"hidden_size is '5', expected an integer",
    ),
    "projection too wide": (lambda: rnncore.LSTMCell(2, 5, projection=5), r"projection is 5, expected 1 to .* = 4"),
    "projection negative": (lambda: rnncore.LSTMCell(2, 5, projection=-1), r"projection is -1, expected 1 to"),
    "projection zero": (lambda: rnncore.LSTMCell(2, 5, projection=0), r"projection is 0, expected 1 to"),
    "projection string": (lambda: rnncore.LSTMCell(2, 5, projection="2"), r"projection is '2', expected"),
    "projection float": (lambda: rnncore.LSTMCell(2, 5, projection=2.5), r"projection is 2\.5, expected"),
    "peephole unknown": (
        lambda: rnncore.LSTMCell(2, 5, peephole="both"),
        r"peephole is 'both', expected None, 'current'",
    ),
    "peephole true": (lambda: rnncore.LSTMCell(2, 5, peephole=True), r"peephole is True, expected None, 'current'"),
    "reset unknown": (lambda: rnncore.GRUCell(2, 5, reset="first"), r"reset is 'first', expected 'after'"),
    "reset unhashable": (lambda: rnncore.GRUCell(2, 5, reset=["after"]), r"reset is \['after'\], expected 'after'"),
    "activation unknown": (lambda: rnncore.RNNCell(2, 5, activation="tan"), r"unknown activation 'tan'; known: .*tanh"),
    "activation none": (lambda: rnncore.LSTMCell(2, 5, activation=None), r"unknown activation None; known"),
    "activation callable": (
        lambda: rnncore.GRUCell(2, 5, activation=torch.tanh),
        r"unknown activation .*tanh.*; known",
    ),
    "activation unhashable": (
        lambda: rnncore.RNNCell(2, 5, activation=["tanh"]),
        r"unknown activation \['tanh'\]; known",
    ),
    "gate unknown": (lambda: rnncore.LSTMCell(2, 5, gate_activation="Sigmoid"), r"unknown activation 'Sigmoid'; known"),
    "no states": (lambda: rnncore.Cell(2, 5, {}), r"state_sizes is empty: .* such as \{'h': 64\}"),
    "state size zero": (lambda: rnncore.Cell(2, 5, {"h": 0}), r"h is 0, expected an integer of at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_argument_is_refused_by_name(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(rnncore.RnncoreError, match=message) as caught:
        make()
    assert isinstance(caught.value, ValueError)
