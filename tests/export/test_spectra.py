"""Spectra of windows beside complex numbers: torch's own transforms, both ways, and layers over the frames between them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.rolling.spectra import overlapped, spectrum
from tests.strategies import randomize
from tests.tolerances import fixed


class Masked(nn.Module):
    """A GRU's mask over the spectra of windows ``size`` wide and ``hop`` apart, taken and put together in one ``way``."""

    def __init__(self, way: str, size: int, hop: int) -> None:
        super().__init__()
        self.way, self.size, self.hop = way, size, hop
        self.gru = nn.GRU(size // 2 + 1, size // 2 + 1, batch_first=True)
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(size) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "frames":
            found = torch.fft.rfft(x.unfold(1, self.size, self.hop)).mT
        else:
            found = torch.stft(
                x, self.size, self.hop, window=self.window, center=self.way != "open", return_complex=True
            )
        mask = torch.sigmoid(self.gru(found.abs().mT)[0]).mT
        if self.way == "polar":
            return torch.istft(torch.polar(mask * found.abs(), found.angle()), self.size, self.hop, window=self.window)
        if self.way == "length":
            return torch.istft(mask * found, self.size, self.hop, window=self.window, length=x.shape[1])
        frames = torch.fft.irfft((found.abs() * mask * torch.exp(1j * found.angle())).mT)
        if self.way == "laid":
            whole = (1, (frames.shape[1] - 1) * self.hop + self.size)
            return F.fold(frames.mT, whole, (1, self.size), stride=(1, self.hop)).flatten(1)
        return frames


def check(way: str, size: int, hop: int) -> None:
    """A file of it answers as PyTorch does, at its own length and others: whole hops, where the answer ends with one."""
    whole = hop if way in ("polar", "laid") else 1
    module = randomize(Masked(way, size, hop), 0).eval()
    module.window = torch.hann_window(size) + 0.1
    with tempfile.TemporaryDirectory() as folder:
        report = export(module, Path(folder) / "m.onnx", torch.randn(2, 8 * size // whole * whole))
        model = runtime.load(report.path)
    for rows, steps in ((2, 8 * size), (1, 5 * size + 1), (3, 3 * size + hop - 1)):
        x = torch.randn(rows, steps // whole * whole)
        with torch.no_grad():
            right = module(x).numpy()
        np.testing.assert_allclose(model.run(x.numpy()), right, atol=fixed("float32"))


@settings(max_examples=3, phases=[Phase.explicit, Phase.generate])
@example("length", 16, 8)
@example("polar", 40, 20)
@given(
    way=st.sampled_from(["frames", "open", "laid", "polar", "length"]),
    size=st.sampled_from([16, 32, 40]),
    hop=st.integers(4, 16),
)
def test_masks_over_spectra(way: str, size: int, hop: int) -> None:
    check(way, size, hop)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(("size", "hop", "width"), [(16, None, None), (15, 4, 10), (12, 5, None), (16, 8, 12)])
def test_spelled_transforms_are_those_of_torch(
    center: bool, normalized: bool, size: int, hop: int | None, width: int | None
) -> None:
    x = torch.randn(2, 133, dtype=torch.float64)
    window = torch.hann_window(width or size, dtype=torch.float64) + 0.1
    args = (size, hop, width, window, center)
    there = torch.stft(x, *args, return_complex=True, normalized=normalized)
    own = spectrum(torch.stft, (x, *args), {"return_complex": True, "normalized": normalized})
    torch.testing.assert_close(own, there)
    if width is not None and not center:
        return  # torch refuses to go back: nothing is known of the first places
    for length in (None, 100):
        back = torch.istft(there, *args, normalized=normalized, length=length)
        own = spectrum(torch.istft, (there, *args), {"normalized": normalized, "length": length})
        torch.testing.assert_close(own, back)


def test_windows_laid_over_each_other() -> None:
    frames = torch.randn(2, 5, 7)
    right = torch.zeros(2, 7 + 4 * 3)
    for k in range(5):
        right[:, 3 * k : 3 * k + 7] += frames[:, k]
    torch.testing.assert_close(overlapped(frames, 3), right)


class Phases(nn.Module):
    """Complex numbers beside a layer over frames, of which the fewest samples make one only."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(33, 16, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.fft.rfft(x.unfold(1, 64, 16))
        return torch.exp(1j * found.angle()).real, self.lstm(found.abs())[0]


def test_layer_over_frames_is_not_taken_for_one_step(tmp_path: Path) -> None:
    """Without verification, which saw it, the layer read the first frame only."""
    module = randomize(Phases(), 0)
    export(module, tmp_path / "m.onnx", torch.randn(2, 320), verify=False)
    x = torch.randn(3, 400)
    with torch.no_grad():
        right = module(x)[1].numpy()
    np.testing.assert_allclose(
        runtime.load(tmp_path / "m.onnx").run(x.numpy())["output_1"], right, atol=fixed("float32")
    )
