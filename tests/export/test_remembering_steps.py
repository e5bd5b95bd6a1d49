"""Modules of one step that keep their state in attributes between calls are exported as sequences of calls."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.export.rolled import TOLERANCE


class Policy(nn.Module):
    """What agents have: a layer of torch called for one step, from None at first."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.head = kind(3, 4), nn.Linear(4, 2)  # type: ignore[call-arg]
        self.hidden = None

    def forward(self, x: Tensor) -> Tensor:
        y, self.hidden = self.rnn(x.unsqueeze(0), self.hidden)
        return self.head(y.squeeze(0))


class Neuron(nn.Module):
    """A membrane that is the number 0 until the first call; a spike takes the threshold from it."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(3, 4)
        self.membrane: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.membrane = self.membrane + (self.into(x) - self.membrane) / 2
        spike = (self.membrane > 0.2).float()
        self.membrane = self.membrane - 0.2 * spike
        return spike + self.membrane


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(Neuron(), nn.Linear(4, 3), Policy(nn.LSTM))

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x)


KINDS = {"lstm": lambda: Policy(nn.LSTM), "gru": lambda: Policy(nn.GRU), "neuron": Neuron, "both": Deep}


@given(kind=st.sampled_from(sorted(KINDS)), steps=st.integers(1, 9), rows=st.integers(1, 4))
@settings(max_examples=6)
def test_a_stream_is_one_call_after_the_other(
    kind: str, steps: int, rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    module = KINDS[kind]().eval()
    report = export(module, tmp_path_factory.mktemp("steps") / "model.onnx", torch.randn(2, 3))
    assert report.causal
    x, caller, wanted = torch.randn(rows, steps, 3), copy.deepcopy(module), []
    with torch.no_grad():
        for t in range(steps):
            wanted.append(caller(x[:, t]))
    right = torch.stack(wanted, 1).numpy()
    model = load(report.path)
    np.testing.assert_allclose(model.run(x.numpy()), right, **TOLERANCE)
    with model.stream() as stream:
        got = np.concatenate([stream.push(part.numpy()) for part in x[0].split(2)])
    np.testing.assert_allclose(got, right[0], **TOLERANCE)


def test_the_module_of_the_caller_stays_at_its_start(tmp_path: Path) -> None:
    module = Policy(nn.LSTM)
    export(module, tmp_path / "model.onnx", torch.randn(2, 3))
    assert module.hidden is None


def test_one_that_has_begun_is_refused(tmp_path: Path) -> None:
    module = Policy(nn.GRU).eval()
    module(torch.randn(2, 3))
    with pytest.raises(
        ExportError, match=r"'hidden' holds other numbers than zeros: if it is the end of an earlier call"
    ):
        export(module, tmp_path / "model.onnx", torch.randn(2, 3))
