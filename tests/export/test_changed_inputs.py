"""Modules that change what they are given in place: ``state += ...``, of an argument of ``forward``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.changed_inputs import sparing_inputs
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.export.rolled import exported
from tests.tolerances import fixed

Change = Callable[[Tensor, Tensor], Tensor]
CHANGES: dict[str, Change] = {
    "+=": lambda h, new: h.add_(new).mul_(0.5),
    "copy_": lambda h, new: h.copy_(torch.tanh(0.5 * h + new)),
    "a column": lambda h, new: (h[:, 0].add_(new[:, 0]), 0.5 * h + 0.1 * new)[1],
}


class Step(nn.Module):
    """One step of a recurrence that writes into its state."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.new, self.head, self._change = nn.Linear(3, 5), nn.Linear(5, 2), CHANGES[change]

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:  # [batch, 3], [batch, 5]
        h = self._change(h, self.new(x))
        return self.head(h), h


def assert_streams(path: Path, x: Tensor, right: list[Tensor]) -> None:
    """Steps x [steps, 1, features] pushed in chunks give the answers that are ``right``."""
    with load(path).stream() as stream:
        got = np.concatenate([stream.push(part[:, 0].numpy()) for part in (x[:2], x[2:3], x[3:])])
    np.testing.assert_allclose(got, torch.stack(right), rtol=0, atol=fixed("float32"))


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_that_is_written_into_streams(change: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    module = Step(change).eval()
    report = export(module, tmp_path / "model.onnx", (torch.randn(2, 3), torch.zeros(2, 5)))
    x, h, right = torch.randn(6, 1, 3), torch.zeros(1, 5), []
    with torch.no_grad():
        for entry in x:
            y, h = module(entry, h)
            right.append(y[0])
    assert_streams(report.path, x, right)


class Scales(nn.Module):
    """Scales its features in place, and says in its attribute how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x *= 0.5
        return self.gru(x)[0]


def test_features_that_are_scaled_in_place_are_scaled_once(tmp_path: Path) -> None:
    torch.manual_seed(6)
    example = torch.randn(2, 5, 3)
    before = example.clone()

    class Asked(Scales):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.clone())  # what this test compares with

    module = Scales()
    model, report = exported(module, tmp_path, example, lambda b, t: torch.randn(b, t, 3), [])
    assert report.causal and torch.equal(example, before)
    asked = Asked()
    asked.load_state_dict(module.state_dict())
    with torch.no_grad():
        np.testing.assert_allclose(model.run(before.numpy()), asked(before), rtol=0, atol=fixed("float32"))


def test_others_are_what_they_were() -> None:
    for module in (nn.GRU(3, 4), Step("copy_")):
        example = torch.randn(5, 2, 3) if isinstance(module, nn.GRU) else (torch.randn(2, 3), torch.zeros(2, 5))
        assert (sparing_inputs(module, example) is module) == isinstance(module, nn.GRU)
    assert isinstance(failing := nn.GRU(3, 4), nn.Module) and sparing_inputs(failing, torch.randn(5, 2, 4)) is failing


def test_a_state_that_two_outputs_may_be_is_asked_for_by_name(tmp_path: Path) -> None:
    class Unclear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.new = nn.Linear(3, 5)

        def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            h = torch.tanh(h + self.new(x))
            return h * 2, h

    example = (torch.randn(2, 3), torch.zeros(2, 5))
    with pytest.raises(ExportError, match=r"states=\{'h': 'output_1'\}"):
        export(Unclear(), tmp_path / "model.onnx", example)
    assert export(Unclear(), tmp_path / "model.onnx", example, states={"h": "output_1"}).causal


class Replaces(nn.Module):
    """One step of two layers, which puts their new states where it was given the old ones, and gives back the answer alone."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cells, self.head, self.kind = nn.ModuleList([nn.GRUCell(3, 5), nn.GRUCell(5, 5)]), nn.Linear(5, 2), kind

    def forward(self, x: Tensor, states: list[Tensor] | dict[int, Tensor]) -> Tensor:
        for i, cell in enumerate(self.cells):
            x = cell(x, states[i])
            if self.kind == "in place":
                states[i].copy_(x)
            else:
                states[i] = x
        return self.head(x)


@pytest.mark.parametrize("kind", ["list", "dict", "in place"])
def test_states_that_are_replaced_where_they_were_given_stream(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(6)
    module = Replaces(kind).eval()
    begin = [torch.zeros(2, 5), torch.zeros(2, 5)]
    given = dict(enumerate(begin)) if kind == "dict" else begin
    report = export(module, tmp_path / "model.onnx", (torch.randn(2, 3), given))
    assert all(not value.any() for value in begin), "the caller's are left alone"
    x, right = torch.randn(6, 1, 3), []
    states: Any = [torch.zeros(1, 5), torch.zeros(1, 5)]
    states = dict(enumerate(states)) if kind == "dict" else states
    with torch.no_grad():
        right = [module(entry, states)[0] for entry in x]
    assert_streams(report.path, x, right)


class Centred(nn.Module):
    """A layer over features that are shifted where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x.sub_(0.5))[0]


def test_features_that_are_zeros_in_the_example_are_no_state(tmp_path: Path) -> None:
    report = export(Centred().eval(), tmp_path / "model.onnx", torch.zeros(2, 5, 3))
    assert [port.name for port in report.signature.outputs] == ["output"] and len(report.signature.states) == 1
