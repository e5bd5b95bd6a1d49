"""Layers and convolutions over a sequence that is padded in front and cut at its end: answers to what came before stream."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from tests.strategies import randomize
from tests.tolerances import fixed

WIDTH = 4
KINDS = ("linear", "act", "norm", "gru", "lstm", "loop", "conv", "skip")
BEGINS = ("pad", "zeros", "learnt")


class Shifted(nn.Module):
    """[batch, time, 4] behind ``by`` steps of its own, through ``kinds``, without the last ``by`` steps."""

    def __init__(self, begin: str, kinds: tuple[str, ...], by: int = 1, *, turned: bool = False) -> None:
        super().__init__()
        self.begin, self.kinds, self.by, self.turned = begin, kinds, by, turned
        self.front = nn.Linear(WIDTH, WIDTH)
        self.first = nn.Parameter(torch.randn(1, by, WIDTH))
        self.parts = nn.ModuleList(self._part(kind) for kind in kinds)

    @staticmethod
    def _part(kind: str) -> nn.Module:
        if kind in ("gru", "lstm"):
            return (nn.GRU if kind == "gru" else nn.LSTM)(WIDTH, WIDTH, batch_first=True)
        if kind in ("conv", "skip"):
            return nn.Conv1d(WIDTH, WIDTH, 3)
        if kind == "loop":
            return nn.GRUCell(WIDTH, WIDTH)
        return nn.LayerNorm(WIDTH) if kind == "norm" else nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x)
        if self.begin == "pad":
            x = F.pad(x, (0, 0, self.by, 0))
        else:
            first = self.first if self.begin == "learnt" else torch.zeros_like(self.first)
            x = torch.cat([first.expand(len(x), -1, -1), x], 1)
        for kind, part in zip(self.kinds, self.parts, strict=True):
            x = self._run(kind, part, x)
        return x.mT[..., : -self.by] if self.turned else x[:, : -self.by]

    @staticmethod
    def _run(kind: str, part: nn.Module, x: Tensor) -> Tensor:
        if kind in ("gru", "lstm"):
            return part(x)[0]
        if kind in ("conv", "skip"):
            y = part(F.pad(x.mT, (2, 0))).mT
            return x + torch.tanh(y) if kind == "skip" else y
        if kind == "loop":
            h, out = torch.zeros_like(x[:, 0]), []
            for t in range(x.shape[1]):
                h = part(x[:, t], h)
                out.append(h)
            return torch.stack(out, 1)
        return torch.sigmoid(x) * 2 if kind == "act" else part(x)


def check(module: Shifted, folder: Path) -> None:
    """It streams, and chunks give what PyTorch gives for the whole."""
    report = export(randomize(module, 0), folder / "m.onnx", torch.randn(2, 12, WIDTH))
    assert report.causal, report.signature.not_causal_because
    x = torch.randn(11, WIDTH)
    with torch.no_grad():
        right = module.eval()(x[None])[0].numpy()
    with runtime.load(folder / "m.onnx").stream() as stream:
        pieces = [stream.push(part.numpy()) for part in x.split([1, 4, 1, 3, 2])]
    np.testing.assert_allclose(np.concatenate(pieces, -1 if module.turned else 0), right, atol=fixed("float32"))


@pytest.mark.parametrize("kind", KINDS)
def test_streams_behind_each_kind(tmp_path: Path, kind: str) -> None:
    check(Shifted("pad", (kind,)), tmp_path)


@settings(max_examples=4, phases=[Phase.explicit, Phase.generate])
@given(
    begin=st.sampled_from(BEGINS),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4).map(tuple),
    by=st.integers(1, 2),
    turned=st.booleans(),
)
def test_streams(begin: str, kinds: tuple[str, ...], by: int, turned: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(Shifted(begin, kinds, by, turned=turned), Path(folder))


class Twice(Shifted):
    """Its last step is an output as well: what the layer reads cannot be cut."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y = self.parts[0](F.pad(self.front(x), (0, 0, 1, 0)))[0]
        return y[:, :-1], y[:, -1]


def test_what_reads_the_last_step_as_well_is_not_cut(tmp_path: Path) -> None:
    module = randomize(Twice("pad", ("gru",)), 0)
    x = torch.randn(2, 12, WIDTH)
    report = export(module, tmp_path / "m.onnx", x)
    assert not report.causal
    with torch.no_grad():
        right = module(x)
    got = runtime.load(tmp_path / "m.onnx").run(x.numpy())
    for value, name in zip(right, ("output_0", "output_1"), strict=True):
        np.testing.assert_allclose(got[name], value.numpy(), atol=fixed("float32"))
