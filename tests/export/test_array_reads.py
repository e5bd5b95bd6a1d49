"""``numpy()`` within ``forward``: of what is handed back, and of what code computes with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.export.rolled import TOLERANCE


class Attends(nn.Module):
    """Gives its weights back as an array, for a picture of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Any:
        y, (h, _) = self.layer(x)
        weights = torch.softmax(torch.bmm(y, h[-1].unsqueeze(2)).squeeze(2), 1)
        answer = self.head(torch.bmm(weights.unsqueeze(1), y).squeeze(1))
        return answer, [weights.data.numpy()]


class Computes(Attends):
    """Goes on with the numbers of such an array."""

    def forward(self, x: Tensor) -> Any:
        y, _ = self.layer(x)
        scale = y.detach().numpy().max()
        return y * float(scale)


@pytest.mark.slow
def test_an_array_that_only_goes_out_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Attends().eval()
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 6, 4))
    assert "numpy.ndarray is left out" in str(report)
    model, x = load(report.path), torch.randn(3, 9, 4)
    with torch.no_grad():
        np.testing.assert_allclose(model.run(x.numpy()), module(x)[0].numpy(), **TOLERANCE)


def test_code_that_computes_with_an_array_is_refused_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"(?s)array of numpy.*test_array_reads\.py"):
        export(Computes().eval(), tmp_path / "model.onnx", torch.randn(2, 6, 4))
