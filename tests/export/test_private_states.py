"""States in attributes whose names begin with an underscore are states as others are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from tests.tolerances import fixed


class Keeps(nn.Module):
    """Keeps its state in ``_hidden``, for one step a call or for many."""

    def __init__(self, *, one: bool) -> None:
        super().__init__()
        self._cell = nn.GRUCell(3, 5) if one else nn.GRU(3, 5, batch_first=True)
        self._hidden: Tensor | None = None
        self._one = one

    def forward(self, x: Tensor) -> Tensor:
        if self._one:
            self._hidden = y = self._cell(x, self._hidden)
        else:
            y, self._hidden = self._cell(x, self._hidden)
        return y


@pytest.mark.parametrize("one", [False, True], ids=["sequences", "steps"])
def test_it_streams_by_its_attribute(one: bool, tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = Keeps(one=one).eval()
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 3) if one else torch.randn(2, 6, 3))
    x = torch.randn(1, 7, 3)
    with torch.no_grad():
        right = torch.stack([module(x[:, t]) for t in range(7)], 1) if one else module(x)
    model = load(report.path)
    with model.stream() as stream:
        pieces = [stream.push(part[0].numpy()) for part in (x[:, :2], x[:, 2:3], x[:, 3:])]
    np.testing.assert_allclose(np.concatenate(pieces), right[0], rtol=0, atol=fixed("float32"))
