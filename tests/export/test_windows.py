"""Hand-written loops over a fixed number of steps, without any recurrent layer: a window that a module is made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.runtime.errors import ExportError
from tests.tolerances import fixed

STEPS = 10


class Images(nn.Module):
    """A convolutional recurrence over ten images, which gives ten others: no layer, no cell, and no more steps than these."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.write = nn.Conv2d(1 + 4, 8, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        state = torch.zeros(images.shape[0], 4, *images.shape[3:])
        for t in range(STEPS):
            state = self._step(images[:, t], state)
        outputs = []
        for _ in range(STEPS):
            state = self._step(torch.zeros_like(images[:, 0]), state)
            outputs.append(torch.sigmoid(self.write(state)))
        return torch.stack(outputs, 1)

    def _step(self, image: Tensor, state: Tensor) -> Tensor:
        gate, new = self.read(torch.cat([image, state], 1)).chunk(2, 1)
        return torch.sigmoid(gate) * torch.tanh(new) + (1 - torch.sigmoid(gate)) * state


def test_a_window_of_images(tmp_path: Path) -> None:
    module = Images().eval()
    report = export(module, tmp_path / "m.onnx", torch.rand(2, STEPS, 1, 6, 5))
    assert not report.causal and "loop" in report.form
    model = runtime.load(report.path)
    for batch in (1, 3):
        images = torch.rand(batch, STEPS, 1, 6, 5)
        with torch.no_grad():
            np.testing.assert_allclose(model.run(images.numpy()), module(images).numpy(), atol=fixed("float32"))


def test_repeated_operations_that_carry_nothing_are_no_loop(tmp_path: Path) -> None:
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([torch.tanh(self.layer(x[:, k])) for k in range(STEPS)], 1)

    with pytest.raises(ExportError, match="calls no recurrent layer"):
        export(Repeated().eval(), tmp_path / "m.onnx", torch.randn(2, STEPS, 4))
