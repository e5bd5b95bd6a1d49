"""Weights that the first call in eval mode changes for good: the file holds what every later call computes with."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnncore.export.other_readings as readings
from rnncore.export import export
from rnncore.export.verification.first_call import after_first_call
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.tolerances import fixed

CLOSE = {"rtol": fixed("float32"), "atol": fixed("float32")}


class Rescaled(nn.Module):
    """A loop by hand whose weights are divided once where the module answers, and multiplied where it is trained (as RWKV's)."""

    def __init__(self, by: float, *, once: bool = True) -> None:
        super().__init__()
        self.inner, self.back = nn.Linear(3, 3), nn.Linear(3, 3)
        self.by, self.once = by, once
        self.is_rescaled = False

    def forward(self, x: Tensor) -> Tensor:
        if not (self.once and self.is_rescaled):
            with torch.no_grad():
                self.back.weight.div_(self.by)
            self.is_rescaled = True
        h, found = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            h = torch.tanh(self.inner(x[:, t]) + self.back(h))
            found.append(h)
        return torch.stack(found, 1)


@pytest.mark.parametrize("by", [1.0, 4.0])
def test_the_file_holds_the_weights_of_every_later_call(by: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Rescaled(by).eval()
    before = copy.deepcopy(module.state_dict())
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 5, 3), streaming=True)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items()), "it is the user's"
    assert "the first call changes 'back.weight'" in str(report)
    x = torch.randn(2, 11, 3)
    with torch.no_grad():
        wanted = module(x).numpy()
    model = load(tmp_path / "m.onnx")
    np.testing.assert_allclose(model.run(x.numpy()), wanted, **CLOSE)
    with model.stream() as stream:
        parts = [stream.push(x[0, start:end].numpy()) for start, end in pairwise([0, 1, 4, 11])]
    np.testing.assert_allclose(np.concatenate(parts), wanted[0], **CLOSE)


def test_weights_that_every_call_changes_are_refused(tmp_path: Path) -> None:
    module = Rescaled(4.0, once=False).eval()
    assert after_first_call(module, torch.randn(2, 5, 3)) is None
    with pytest.raises(ExportError):
        export(module, tmp_path / "m.onnx", torch.randn(2, 5, 3))
    assert not (tmp_path / "m.onnx").exists()


def test_a_module_that_changes_nothing_or_fails_has_no_first_call() -> None:
    assert after_first_call(nn.GRU(3, 3), torch.randn(2, 5, 3)) is None
    assert after_first_call(nn.GRU(3, 3), torch.randn(2, 5, 4)) is None


def test_a_module_that_always_seems_to_settle_is_read_so_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str] = []

    def settles(module: nn.Module, example: Tensor) -> tuple[nn.Module, str] | None:
        seen.append("again")
        return (module, "the first call changes it") if len(seen) < 5 else None

    monkeypatch.setattr(readings, "after_first_call", settles)
    with pytest.raises(ExportError, match="no recurrent layer"):
        export(nn.Linear(3, 3), tmp_path / "m.onnx", torch.randn(2, 5, 3))
    assert len(seen) == 1


class Divided(nn.Module):
    """A layer of torch beside tensors of which one is divided at the first call, in one way or another."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.gru, self.back, self.kind, self.is_done = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2), kind, False
        self.scale, self.scales = 1 + torch.rand(4), [1 + torch.rand(4)]
        self.register_buffer("kept", 1 + torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        named = {"attribute": self.scale, "list": self.scales[0], "buffer": self.kept}
        if not self.is_done:
            with torch.no_grad():
                if self.kind == "data":
                    self.back.weight.data = self.back.weight.data / 4
                elif self.kind == "copy_":
                    self.back.weight.copy_(self.back.weight / 4)
                elif self.kind == "of the layer":
                    self.gru.weight_hh_l0.mul_(0.25)
                elif self.kind == "another parameter":
                    self.back.weight = nn.Parameter(self.back.weight / 4)
                else:
                    named[self.kind].div_(4)  # type: ignore[operator]
            self.is_done = True
        return self.back(self.gru(x)[0] * named.get(self.kind, 1.0))


@pytest.mark.parametrize("kind", ["data", "copy_", "of the layer", "another parameter", "attribute", "list", "buffer"])
def test_tensors_that_are_divided_once_beside_a_layer(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = Divided(kind).eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 5, 3))
    x = torch.randn(2, 9, 3)
    with torch.no_grad():
        np.testing.assert_allclose(load(tmp_path / "m.onnx").run(x.numpy()), module(x).numpy(), **CLOSE)


class Normed(nn.Module):
    """A weight that is made of two others at each call (as ``torch.nn.utils.weight_norm`` does)."""

    def __init__(self) -> None:
        super().__init__()
        self.length, self.towards, self.gru = nn.Parameter(torch.ones(3)), nn.Parameter(torch.randn(3, 3)), nn.GRU(3, 3)
        self.weight = self.length * self.towards.detach()

    def forward(self, x: Tensor) -> Tensor:
        self.weight = self.length * self.towards
        return self.gru(x @ self.weight)[0]


def test_weights_that_follow_from_others_at_each_call_are_no_change() -> None:
    module = Normed().eval()
    with torch.no_grad():
        module.length.mul_(2)  # `weight` is of before, until the next call
    assert after_first_call(module, torch.randn(2, 5, 3)) is None
