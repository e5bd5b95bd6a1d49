"""Convolutional recurrences: states are images, whose sizes a loop holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from tests.tolerances import fixed


class ConvLSTM(nn.Module):
    """As in "Convolutional LSTM Network" (Shi et al., 2015), two layers, over [batch, time, channels, height, width].

    Each image goes through convolutions of its own first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(3, 1, 1))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(read + kept, 4 * kept, 3, padding=1) for read, kept in ((2, 3), (3, 2))
        )

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            kept = convolution.out_channels // 4
            h = c = x.new_zeros(x.size(0), kept, x.size(3), x.size(4))
            found = []
            for t in range(x.size(1)):
                read = self.front(x[:, t]) if kept == 3 else x[:, t]
                i, f, o, g = convolution(torch.cat([read, h], 1)).split(kept, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                found.append(h)
            x = torch.stack(found, 1)
        return x


def test_images_stream_at_the_size_of_the_example(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = ConvLSTM().eval()
    report = export(module, tmp_path / "m.onnx", torch.randn(2, 7, 2, 5, 4))
    assert report.causal
    assert "x axis 3 to 5, x axis 4 to 4, as in the example" in str(report)
    model = runtime.load(tmp_path / "m.onnx")
    x = torch.randn(3, 11, 2, 5, 4)
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(model.run(x.numpy()), expected, rtol=fixed("float32"), atol=fixed("float32"))
    stream = model.stream()
    chunks = [stream.push(part) for part in np.split(x[0].numpy(), [1, 5])]
    np.testing.assert_allclose(np.concatenate(chunks), expected[0], rtol=fixed("float32"), atol=fixed("float32"))


class Decodes(nn.Module):
    """One step of a recurrence of images, and layers of images behind it that have no weights."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        self.convolution, self.behind = nn.Conv2d(2 + 4, 4, 3, padding=1), behind

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.convolution(torch.cat([x, h], 1)))
        return self.behind(h), h


@pytest.mark.slow
@pytest.mark.parametrize(
    "behind",
    [
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(scale_factor=2),
        nn.PixelShuffle(2),
        nn.AdaptiveAvgPool2d(1),
        nn.ReflectionPad2d(1),
        nn.ReplicationPad2d(2),
    ],
)
def test_layers_behind_a_step_take_any_number_of_rows(behind: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    step = Decodes(behind).eval()
    report = export(step, tmp_path / "m.onnx", (torch.randn(2, 2, 6, 5), torch.zeros(2, 4, 6, 5)))
    assert report.causal
    x, h, expected = torch.randn(3, 7, 2, 6, 5), torch.zeros(3, 4, 6, 5), []
    with torch.no_grad():
        for frame in x.unbind(1):
            y, h = step(frame, h)
            expected.append(y)
    answer = runtime.load(tmp_path / "m.onnx").run(x.numpy())
    np.testing.assert_allclose(answer, torch.stack(expected, 1).numpy(), rtol=fixed("float32"), atol=fixed("float32"))
