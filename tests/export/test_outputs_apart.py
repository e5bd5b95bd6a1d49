"""Outputs that do not come with the same step: the reason for no stream says which to leave out, and then the rest streams."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from tests.strategies import randomize
from tests.tolerances import fixed


class Apart(nn.Module):
    """A GRU whose outputs are those named in ``kinds``, each another function of the steps."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.kinds = kinds
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.pair = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> list[Tensor]:
        y, last = self.gru(x)
        whole = x.shape[1] // 2 * 2
        made = {
            "each": y,
            "behind": torch.cat([y[:, :-1], y[:, 1:]], -1),
            "ahead": torch.cat([torch.zeros_like(y[:, :1]), y], 1),
            "pairs": self.pair(torch.cat([y[:, :whole:2], y[:, 1:whole:2]], -1)),
            "last": last[0],
        }
        return [made[kind] for kind in self.kinds]


@pytest.mark.parametrize(
    ("kinds", "left"),
    [
        (("behind", "each"), [0]),
        (("each", "ahead"), [0]),
        (("pairs", "last"), [0]),
        (("last", "pairs", "each"), [1, 2]),
        (("each", "behind", "each"), [0, 2]),
    ],
)
def test_says_which_outputs_to_leave_out(tmp_path: Path, kinds: tuple[str, ...], left: list[int]) -> None:
    module = randomize(Apart(kinds), 0)
    x = torch.randn(2, 12, 3)
    report = export(module, tmp_path / "m.onnx", x)
    assert not report.causal
    found = re.search(r"output_names=(\[.*?\]) leaves (?:it|them) out$", report.signature.not_causal_because)
    assert found, report.signature.not_causal_because
    names = ast.literal_eval(found[1])
    assert [i for i, name in enumerate(names) if name is not None] == left
    streams = export(module, tmp_path / "s.onnx", x, output_names=names)
    assert streams.causal, streams.signature.not_causal_because
    model = runtime.load(tmp_path / "s.onnx")
    chunk = torch.randn(10, 3)
    with torch.no_grad():
        right = [value[0].numpy() for place, value in enumerate(module(chunk[None])) if place in left]
    with model.stream() as stream:
        pieces = [stream.push(part.numpy()) for part in chunk.split([3, 1, 4, 2])]
    for place, value in zip(left, right, strict=True):
        own = [piece[names[place]] if isinstance(piece, dict) else piece for piece in pieces]
        np.testing.assert_allclose(np.concatenate(own), value, rtol=0, atol=fixed("float32"))


def test_counts_outputs_that_are_left_out_already(tmp_path: Path) -> None:
    module = randomize(Apart(("last", "behind", "each")), 0)
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 12, 3), output_names=[None, "a", "b"])
    assert report.signature.not_causal_because.endswith("output_names=[None, 'a', None] leaves it out")


def test_names_no_way_out_where_there_is_none(tmp_path: Path) -> None:
    report = export(randomize(Apart(("ahead",)), 0), tmp_path / "m.onnx", torch.randn(2, 12, 3))
    assert not report.causal
    assert "output_names" not in report.signature.not_causal_because
