"""What cannot be exported: a clear error of the documented class, and nothing left on disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore.export import export
from rnncore.export.graph.builder import Builder
from rnncore.export.lowering import forms
from rnncore.export.lowering.recurrence import Recurrence
from rnncore.export.tracing.torch_onnx import to_program
from rnncore.runtime.errors import ExportError, InputError, RnncoreError, VerificationError
from tests.export.exporting import FORMS, one_trace
from tests.export.modules import Network
from tests.strategies import randomize


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 3, batch_first=True)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.gru(x)[0] * scale


X = torch.randn(2, 4, 5)


def scripted() -> nn.Module:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return torch.jit.trace(nn.Linear(5, 3), X)


ARGUMENTS: dict[str, tuple[Callable[[], Any], dict[str, Any], type[RnncoreError], str]] = {
    "unknown form": (Words, {"form": "spiral"}, InputError, r"form is 'spiral', expected one of 'loop', 'scan'"),
    "no module": (lambda: "model.pt", {}, InputError, r"model is a str, expected a torch.nn.Module"),
    "a class": (lambda: Words, {}, InputError, r"model is the class Words and no module of it, expected"),
    "TorchScript": (
        scripted,
        {},
        InputError,
        r"hand in the module that it was made of",
    ),
    "TorchScript inside": (
        lambda: nn.Sequential(Words(), scripted()),
        {},
        InputError,
        r"'1' is TorchScript \(Linear\), which cannot be exported: put the module there that it was made of",
    ),
    "weights without values": (
        lambda: Words().to("meta"),
        {},
        InputError,
        r"'gru.weight_ih_l0' is on the device 'meta'",
    ),
    "weights to come": (lambda: nn.LazyLinear(3), {}, InputError, r"'weight' has no values yet: run the module on"),
    "an array": (Words, {"example": X.numpy()}, InputError, r"holds no tensor, only ndarray: use torch.from_numpy"),
    "too many arguments": (
        Words,
        {"example": (X, X)},
        InputError,
        r"the example does not fit Words.forward.*too many positional.*pass a tensor, a tuple",
    ),
    "unknown keyword": (Words, {"example": {"y": X}}, InputError, r"does not fit Words.forward.*; pass a tensor"),
    "a list of numbers": (Words, {"example": [3, 1, 2]}, InputError, r"holds no tensor, only list: use torch.tensor"),
    "no tensor": (Words, {"example": "x"}, InputError, r"the example holds no tensor"),
    "empty axis": (Words, {"example": X[:, :0]}, InputError, r"'x' has shape \(2, 0, 5\): it needs at least one entry"),
    "fails on its own example": (
        Words,
        {"example": torch.randn(2, 4, 7)},
        ExportError,
        r"Words fails on the example itself: .*5.*7",
    ),
    "axes of no input": (
        Words,
        {"axes": {"z": ("batch", "time", None)}},
        InputError,
        r"axes names 'z', the inputs are",
    ),
    "axes too few": (Words, {"axes": {"x": ("batch",)}}, InputError, r"axes of 'x' has 1 entries, the tensor has 3"),
    "lengths of no input": (Words, {"lengths": "n"}, InputError, r"lengths='n' is no input; the inputs are \['x'\]"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments(case: str, folder: Path) -> None:
    make, options, error, message = ARGUMENTS[case]
    with pytest.raises(error, match=r"(?s)" + message):
        export(make(), folder / "model.onnx", **{"example": X, **options})
    assert list(folder.iterdir()) == []


def test_missing_folder(folder: Path) -> None:
    with pytest.raises(ExportError, match=r"the folder .*nowhere does not exist; create it first"):
        export(Words(), folder / "nowhere" / "model.onnx", X)
    assert list(folder.iterdir()) == []


def test_arguments_in_the_order_of_torch_onnx_export(folder: Path) -> None:
    arguments: tuple[Any, ...] = (X, str(folder / "model.onnx"))
    with pytest.raises(InputError, match=r"path is a Tensor, .*: export\(model, \"model.onnx\", example\)"):
        export(Words(), *arguments)
    assert list(folder.iterdir()) == []


class NoRecurrence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Hidden(Words):
    """Its answer is where nobody looks."""

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Any:
        return SimpleNamespace(y=super().forward(x, scale=scale))


class Flattened(nn.Module):
    """No output has a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0].mean((0, 1))


class Narrow(Words):
    """Autocast of its own."""

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        y = super().forward(x, scale=scale)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (y @ y.new_ones(3, 2)).float()


class Rotated(Words):
    """A state of complex numbers, of which a function is taken that is not known by its real parts."""

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        h, ys = torch.zeros(x.shape[0], 5, dtype=torch.complex64), []
        for t in range(x.shape[1]):
            h = h * torch.polar(torch.tensor(0.9), torch.tensor(0.1)) + torch.tanh(x[:, t].to(torch.complex64))
            ys.append(h.real)
        return self.gru(torch.stack(ys, 1))[0] * scale


class WideCell(rnncore.Cell):
    """A step that puts out the wrong size."""

    def __init__(self) -> None:
        super().__init__(5, 3, {"h": 3})

    def step(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return z, h


UNTRACEABLE: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "no recurrent layer": (
        NoRecurrence,
        {},
        r"NoRecurrence calls no recurrent layer .*torch.onnx.export alone is enough",
    ),
    "no output": (
        Hidden,
        {},
        r"Hidden returns a SimpleNamespace without a tensor: let forward return a tensor, or a tuple",
    ),
    "output without a batch": (Flattened, {}, r"output 'output' of shape \[3\] has 0 batch axes, expected exactly one"),
    "bfloat16 inside": (
        Narrow,
        {},
        r"forward computes in bfloat16 \(.*test_refusals.py:\d+, in forward\), for which onnxruntime has no CPU kernels",
    ),
    "complex numbers": (
        Rotated,
        {},
        r"with complex numbers in a way that is not known to have real parts.*test_refusals.py\", line \d+",
    ),
    "step of the wrong size": (
        lambda: Network(rnncore.Recurrent(WideCell())),
        {},
        r"WideCell.step gives y of shape \[batch, 5\], expected \[batch, 3\]",
    ),
    "gelu in float64": (
        lambda: Network(rnncore.Recurrent(rnncore.RNNCell(5, 3, activation="gelu"))).double(),
        {"example": X.double()},
        r"the file would not load: onnxruntime .* does not accept the model: Could not find .* Erf",
    ),
    "wrong number of output names": (
        Words,
        {"output_names": ("a", "b")},
        r"output_names has 2 names, the module returns 1 tensors",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", UNTRACEABLE)
def test_modules_that_cannot_be_exported(case: str, folder: Path) -> None:
    make, options, message = UNTRACEABLE[case]
    with pytest.raises(ExportError, match=r"(?s)" + message):
        export(make().eval(), folder / "model.onnx", **{"example": X, **options})
    assert list(folder.iterdir()) == []


def reversal_lost(emit: forms.Emit) -> forms.Emit:
    def wrong(builder: Builder, recurrence: Recurrence, time: ir.Value) -> list[ir.Value]:
        return emit(builder, replace(recurrence, reverse=not recurrence.reverse), time)

    return wrong


def state_not_moved(emit: forms.Emit) -> forms.Emit:
    def wrong(builder: Builder, recurrence: Recurrence, time: ir.Value) -> list[ir.Value]:
        take_step = recurrence.take_step

        def stuck(body: Builder, z: ir.Value, states: list[ir.Value], keep: ir.Value | None) -> list[ir.Value]:
            y, *_ = take_step(body, z, states, keep)
            return [y, *(body.op("Identity", state) for state in states)]

        recurrence.take_step = stuck  # type: ignore[method-assign, assignment]
        return emit(builder, recurrence, time)

    return wrong


@pytest.mark.slow
def test_wrong_graphs_are_caught_and_leave_no_file(folder: Path) -> None:
    target = folder / "model.onnx"
    target.write_bytes(b"what was here before")
    module = randomize(Words().eval(), 1)
    with one_trace():
        for form, fault in product(FORMS, (reversal_lost, state_not_moved)):
            name = f"emit_{form}"
            with (
                mock.patch.object(forms, name, fault(getattr(forms, name))),
                pytest.raises(
                    VerificationError, match=r"the exported file and the PyTorch module disagree:\n  - whole \(batch"
                ),
            ):
                export(module, target, X, form=form)  # type: ignore[arg-type]
            assert target.read_bytes() == b"what was here before"
            assert list(folder.iterdir()) == [target]
        export(module, target, X)  # without a fault


def test_a_question_that_torch_cannot_guard_is_told_in_our_words() -> None:
    class Asking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(ExportError) as caught:
        to_program(Asking().eval(), (torch.randn(2, 9, 4),), None, what="Asking")
    message = str(caught.value)
    assert "forward reads the value of a tensor (an if, int(), float() or item())" in message
    assert "test_refusals.py" in message and "TORCH" not in message and len(message.splitlines()) <= 12
