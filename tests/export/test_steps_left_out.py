"""Rows and steps in one axis, of which the module leaves out what is not a number: nobody could tell whose the others are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from rnncore.runtime.errors import InputError
from tests.export.rolled import TOLERANCE


class LeavesOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        known = ~torch.isnan(x[:, :, 0]).reshape(-1)
        x[torch.isnan(x)] = 0
        return self.out(self.layer(x)[0].reshape(-1, 6)[known])


def test_the_file_says_which_output_has_too_few(tmp_path: Path) -> None:
    """The export ended with an error of numpy; what it told of NaN now, the file says when it is asked."""
    torch.manual_seed(0)
    module = LeavesOut().eval()
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 8, 5))
    assert any("NaN in 'x' is refused by the file" in line for line in str(report).splitlines())
    model, x = load(tmp_path / "m.onnx"), torch.randn(3, 7, 5)
    with torch.no_grad():
        np.testing.assert_allclose(model.run(x.numpy()), module(x).numpy(), **TOLERANCE)
    x[1, 2] = torch.nan
    with pytest.raises(InputError, match="'output' has 20 entries for 3 sequences of 7 steps, expected 21"):
        model.run(x.numpy())
