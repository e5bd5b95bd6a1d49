"""The oracle itself: independent, equal to torch.nn where torch has the cell, and to steps done by hand."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import rnncore
from tests.oracle import cells, layers
from tests.oracle.adapt import oracle_of
from tests.oracle.functions import FUNCTIONS, layer_norm, sigmoid
from tests.parity import assert_same
from tests.strategies import randomize


@pytest.mark.parametrize("file", ["functions.py", "cells.py", "layers.py"])
def test_oracle_knows_neither_torch_nor_rnncore(file: str) -> None:
    tree = ast.parse(Path(__file__).with_name(file).read_text(encoding="utf-8"))
    imported = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    allowed = ("numpy", "math", "dataclasses", "typing", "collections", "__future__", "tests.oracle")
    assert all(name.split(".")[0] in allowed or name.startswith("tests.oracle") for name in imported), imported
    assert "tests.oracle.adapt" not in imported


@pytest.mark.parametrize(
    ("theirs", "cell"),
    [
        (nn.RNNCell(5, 11), rnncore.RNNCell(5, 11)),
        (nn.RNNCell(5, 11, nonlinearity="relu"), rnncore.RNNCell(5, 11, activation="relu")),
        (nn.GRUCell(5, 11), rnncore.GRUCell(5, 11)),
        (nn.LSTMCell(5, 11), rnncore.LSTMCell(5, 11)),
    ],
    ids=["rnn tanh", "rnn relu", "gru", "lstm"],
)
def test_oracle_equals_torchs_own_cells(theirs: nn.Module, cell: rnncore.Cell) -> None:
    """Step by step with torch.nn's cells, so that the oracle and rnncore cannot be wrong in the same way."""
    randomize(theirs.double(), 1)
    cell.double().load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((7, 13, 5))
    y, end = (reference := oracle_of(rnncore.Recurrent(cell))).run(x, reference.initial(7), [13] * 7)
    state, steps = None, []
    for t in range(13):
        state = theirs(torch.from_numpy(x[:, t]), state)
        steps.append(state[0] if isinstance(state, tuple) else state)
    want = {"y": torch.stack(steps, 1).detach().numpy(), "h": steps[-1].detach().numpy()}
    if isinstance(state, tuple):
        want["c"] = state[1].detach().numpy()
    assert_same(dict(zip(want, (y, *end), strict=True)), want, torch.float64, "oracle", depth=1, x=x)


def test_simplified_gru_by_hand() -> None:
    """One unit, one input, the notes' equations with numbers that can be followed on paper."""
    cell = cells.SimplifiedGRU(
        (np.zeros(1),),
        W_u=np.array([[0.0, 0.0]]),
        b_u=np.array([np.log(3.0)]),  # Γu = 3/4
        W_c=np.array([[2.0, 1.0]]),
        b_c=np.array([0.5]),
        gate_u=sigmoid,
        g=FUNCTIONS["linear"],
    )
    y, (c,) = cell.step(np.array([10.0]), np.array([4.0]))
    assert np.allclose(c, 0.75 * (2 * 4 + 10 + 0.5) + 0.25 * 4) and y is c


def test_full_gru_and_lstm_by_hand() -> None:
    half, three_quarters = np.array([0.0]), np.array([np.log(3.0)])
    nothing = np.zeros((1, 2))
    gru = cells.FullGRU(
        (np.zeros(1),),
        W_u=nothing,
        b_u=three_quarters,
        W_c=np.array([[2.0, 1.0]]),
        b_c=np.array([0.5]),
        gate_u=sigmoid,
        g=FUNCTIONS["linear"],
        W_r=nothing,
        b_r=half,
        gate_r=sigmoid,
    )
    assert np.allclose(gru.step(np.array([10.0]), np.array([4.0]))[0], 0.75 * (2 * (0.5 * 4) + 10 + 0.5) + 0.25 * 4)
    lstm = cells.LSTM(
        (np.zeros(1), np.zeros(1)),
        W={"u": nothing, "f": nothing, "o": nothing, "c": np.array([[2.0, 1.0]])},
        b={"u": half, "f": three_quarters, "o": half, "c": np.array([0.5])},
        gate=sigmoid,
        g=FUNCTIONS["linear"],
        P={"u": np.array([0.0]), "f": np.array([0.0]), "o": np.array([np.log(3.0) / 8])},
    )
    y, (a, c) = lstm.step(np.array([10.0]), np.array([4.0]), np.array([8.0]))
    assert np.allclose(c, 0.5 * (2 * 4 + 10 + 0.5) + 0.75 * 8)
    assert np.allclose(a, 0.75 * c) and y is a, "Γo sees c<t-1> = 8"
    lstm.output_sees_new = True
    assert np.allclose(lstm.step(np.array([10.0]), np.array([4.0]), np.array([8.0]))[0], sigmoid(c * np.log(3) / 8) * c)


def test_layer_norm_by_hand() -> None:
    assert np.allclose(layer_norm(np.array([1.0, 3.0]), np.array([2.0, 2.0]), 5.0, epsilon=0.0), [3.0, 7.0])


def test_rows_run_within_their_lengths() -> None:
    counting = cells.BasicRNN((np.zeros(1),), W_a=np.array([[1.0, 1.0]]), b_a=np.zeros(1), g=FUNCTIONS["linear"])
    x = np.array([[[1.0], [2.0], [4.0]], [[8.0], [16.0], [32.0]], [[64.0], [128.0], [256.0]]])
    y, (end,) = layers.Recurrent(counting).run(x, (np.full((3, 1), 0.5),), [3, 2, 0])
    assert y[..., 0].tolist() == [[1.5, 3.5, 7.5], [8.5, 24.5, 0.0], [0.0, 0.0, 0.0]]
    assert end[:, 0].tolist() == [7.5, 24.5, 0.5]
    y, (end,) = layers.Recurrent(counting, reverse=True).run(x, (np.full((3, 1), 0.5),), [3, 2, 0])
    assert y[..., 0].tolist() == [[7.5, 6.5, 4.5], [24.5, 16.5, 0.0], [0.0, 0.0, 0.0]]
