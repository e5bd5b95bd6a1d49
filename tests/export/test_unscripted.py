"""Layers under TorchScript are exported as the Python that they were compiled from."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime.errors import InputError
from tests.export.rolled import exported

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):

    class Cell(torch.jit.ScriptModule):
        __constants__ = ("scale",)

        def __init__(self, width: int, hidden: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(width, hidden))
            self.back = nn.Linear(hidden, hidden)
            self.register_buffer("offset", torch.randn(hidden))
            self.scale = 0.7
            self.times = 2

        def scaled(self, x: Tensor) -> Tensor:
            return x * self.scale

        @torch.jit.script_method
        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return self.scaled(torch.tanh(x @ self.weight + self.back(h) + self.offset)) * self.times

    class Layer(torch.jit.ScriptModule):
        def __init__(self, width: int, hidden: int) -> None:
            super().__init__()
            self.cell = Cell(width, hidden)
            self.hidden = hidden

        @torch.jit.script_method
        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros(x.size(0), self.hidden)
            outputs = torch.jit.annotate(list[Tensor], [])
            for t in range(x.size(1)):
                h = self.cell(x[:, t], h)
                outputs += [h]
            return torch.stack(outputs, 1)

    class Summed(Layer):
        @torch.jit.script_method
        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros(x.size(0), self.hidden)
            outputs = torch.jit.annotate(list[Tensor], [])
            for t in range(x.size(1)):
                h = torch.tanh(self.cell(x[:, t], h)) + 0.4 * h
                outputs += [h]
            return torch.stack(outputs, 1)


class Plain(nn.Module):
    """What torch.jit.script is given: a layer of torch, a container, a tuple of numbers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.rest = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.factors = (1, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.gru(x)
        return self.rest(y) * self.factors[1]


class Around(nn.Module):
    """Plain code around a layer of script methods, of which it has one twice."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.layer = Layer(width, hidden)
        self.again = self.layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.first(x)) + self.again(x)


def scripted(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return torch.jit.script(module)


KINDS: dict[str, Callable[[int, int], nn.Module]] = {
    "script methods": Layer,
    "script methods of a subclass": Summed,
    "within plain code": Around,
    "scripted": lambda width, hidden: scripted(Plain(width, hidden)),
    "scripted around script methods": lambda width, hidden: scripted(Around(width, hidden)),
}


@given(data=st.data(), kind=st.sampled_from(sorted(KINDS)))
@settings(max_examples=8)
def test_scripted_layers_stream_as_what_they_were_compiled_from(
    data: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    width, hidden = data.draw(st.integers(1, 4), "width"), data.draw(st.integers(2, 5), "hidden")
    module = KINDS[kind](width, hidden)
    weights = {name: value.detach().clone() for name, value in module.named_parameters()}
    sizes = [(data.draw(st.integers(1, 4), "batch"), data.draw(st.integers(1, 12), "time"))]
    folder = tmp_path_factory.mktemp("script")
    _, report = exported(module, folder, torch.randn(2, 5, width), lambda b, t: torch.randn(b, t, width), sizes)
    assert report.causal
    assert all(torch.equal(weights[name], value) for name, value in module.named_parameters())


def test_what_was_loaded_or_traced_is_refused_as_before(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.save(scripted(Plain(3, 4)), buffer)
        buffer.seek(0)
        loaded = torch.jit.load(buffer)
        traced = torch.jit.trace(nn.Linear(3, 4), torch.randn(2, 3))
    for module in (loaded, traced, nn.Sequential(traced)):
        with pytest.raises(InputError, match="TorchScript"):
            export(module, tmp_path / "model.onnx", torch.randn(2, 5, 3))


def test_python_that_answers_otherwise_is_not_what_was_compiled(tmp_path: Path) -> None:
    module = scripted(Plain(3, 4))
    before = Plain.forward
    try:
        Plain.forward = lambda self, x: before(self, x) + 1  # changed after it was compiled
        with pytest.raises(InputError, match="TorchScript"):
            export(module, tmp_path / "model.onnx", torch.randn(2, 5, 3))
    finally:
        Plain.forward = before
