"""``squeeze`` of an axis that is 1 at every size a file takes, though its size is an expression."""

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

WINDOW, WIDTH = 6, 4


class WholeWindow(nn.Module):
    """A window as long as the sequence is expected to be, in a text classifier: one from 6 steps to 11."""

    def __init__(self, axis: int | None) -> None:
        super().__init__()
        self.layer, self.pool = nn.GRU(WIDTH, 5, batch_first=True), nn.MaxPool1d(WINDOW)
        self.head, self.axis = nn.Linear(5, 3), axis

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.layer(x)[0].transpose(1, 2))
        return self.head(y.squeeze() if self.axis is None else y.squeeze(self.axis))


@pytest.mark.slow
@pytest.mark.parametrize("axis", [None, -1])
def test_one_window_over_all_steps_leaves_its_axis(axis: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = WholeWindow(axis).eval()
    model = load(export(module, tmp_path / "model.onnx", torch.randn(2, WINDOW, WIDTH)).path)
    for batch, time in ((3, WINDOW), (2, WINDOW + 2), (4, 2 * WINDOW - 1)):
        x = torch.randn(batch, time, WIDTH)
        np.testing.assert_allclose(model.run(x.numpy()), module(x).detach().numpy(), **TOLERANCE)
    with pytest.raises(InputError, match="at most 11"):
        model.run(torch.randn(2, 2 * WINDOW, WIDTH).numpy())
