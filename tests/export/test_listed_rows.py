"""Modules that give a list with one entry for each row, or for each step: no file has outputs whose number changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime.errors import ExportError


class Listed(nn.Module):
    """The states at the end, [steps, batch, features] by hand, as a list of rows or of steps; or of two layers."""

    def __init__(self, of: str) -> None:
        super().__init__()
        self.cells, self.of = nn.ModuleList([nn.GRUCell(4, 5), nn.GRUCell(4, 5)]), of

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        states, found = [x.new_zeros(x.size(1), 5) for _ in self.cells], []
        for t in range(x.size(0)):
            states = [cell(x[t], h) for cell, h in zip(self.cells, states, strict=True)]
            found.append(states[0] * states[1])
        y = torch.stack(found)
        return y, {"rows": list(y[-1]), "steps": found, "layers": states}[self.of]


@pytest.mark.parametrize(
    ("of", "why"),
    [("rows", "one output more for each entry along axis 1 of 'x'"), ("steps", "as a list of steps does")],
)
def test_a_list_of_rows_or_steps_is_refused(of: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"{why}.*: stack them into one tensor"):
        export(Listed(of).eval(), tmp_path / "model.onnx", torch.randn(6, 3, 4))


@pytest.mark.slow
def test_a_list_of_layers_is_not(tmp_path: Path) -> None:
    report = export(Listed("layers").eval(), tmp_path / "model.onnx", torch.randn(6, 3, 4))
    assert report.causal


class Held(nn.Module):
    """Begins from two rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x.new_zeros(1, 2, 5))[0]


def test_a_batch_that_is_held_is_named_by_the_line_that_fails(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"(?s)with 3 in place of 2 along axis 0 it fails: RuntimeError.*test_listed_rows"
    ):
        export(Held().eval(), tmp_path / "model.onnx", torch.randn(2, 6, 4))
