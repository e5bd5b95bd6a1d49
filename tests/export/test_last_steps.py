"""Outputs that are the last few steps, however many come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE


class Ends(nn.Module):
    """All steps of a layer, and the last ``most`` of them."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.gru, self._most = nn.GRU(3, 4, batch_first=True), most

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.gru(x)
        return y, y[:, -self._most :]


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_the_last_steps_have_that_size(most: int, tmp_path: Path) -> None:
    module = Ends(most).eval()
    model = load(export(module, tmp_path / "model.onnx", torch.randn(2, 16, 3)).path)
    assert [spec.shape[1] for spec in model.signature.outputs] == ["time", most]
    for batch, time in ((1, most), (3, most + 1), (4, 17), (2, 64)):
        x = torch.randn(batch, time, 3)
        with torch.no_grad():
            wanted = module(x)
        for found, right in zip(model.run(x.numpy()).values(), wanted, strict=True):
            np.testing.assert_allclose(found, right.numpy(), **TOLERANCE)
