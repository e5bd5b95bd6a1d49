"""Tell speakers apart with the trained network of Resemblyzer, a three-layer LSTM: python examples/port_resemblyzer.py

The checkpoint of the package goes into a plain PyTorch module, the whole of it (LSTM, linear layer, norm) becomes one file,
and the file alone makes vectors of voices: at once for a whole recording, or better with every chunk of a stream.  They are
those of the package's own ``VoiceEncoder``, on the same mel spectrograms.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import wave
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from datasets import debian_package, pip_package
from timing import side_by_side
from torch import nn

from rnncore import runtime
from rnncore.export import export

RATE, WINDOW, HOP, MELS, FRAMES = 16_000, 400, 160, 40, 160  # resemblyzer.hparams; FRAMES is 1.6 s
SPEECH = "usr/share/pocketsphinx/test/data"


class Encoder(nn.Module):
    """Mel frames [batch, time, mels] -> voices [batch, size], of length 1."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        hidden, mels = weights["lstm.weight_hh_l0"].shape[1], weights["lstm.weight_ih_l0"].shape[1]
        layers = sum(name.startswith("lstm.weight_ih") for name in weights)
        self.lstm = nn.LSTM(mels, hidden, layers, batch_first=True)
        self.linear = nn.Linear(hidden, len(weights["linear.bias"]))
        self.load_state_dict({name: w for name, w in weights.items() if not name.startswith("similarity")})

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(frames)
        voice = torch.relu(self.linear(hidden[-1]))
        return voice / torch.linalg.vector_norm(voice, dim=1, keepdim=True)


def mel_frames(samples: np.ndarray) -> np.ndarray:
    """[samples] -> [time, mels]: power in bands of equal width in mels, with the settings of resemblyzer.audio."""
    padded = np.pad(samples, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW + 1)[:-1]
    power = np.abs(np.fft.rfft(windows)) ** 2

    def hertz(mel: np.ndarray) -> np.ndarray:  # Slaney: linear up to 1 kHz, then logarithmic
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    top = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    edges = hertz(np.linspace(0, top, MELS + 2))
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    widths = np.diff(edges)[:, None]
    rise, fall = (bins - edges[:-2, None]) / widths[:-1], (edges[2:, None] - bins) / widths[1:]
    filters = np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return (power @ filters.T).astype(np.float32)


def their_encoder(folder: Path) -> nn.Module:
    """The package's own class.  Its package imports libraries for recordings, which mel frames do not need."""
    package, audio = ModuleType("resemblyzer"), ModuleType("resemblyzer.audio")
    package.__path__ = [str(folder / "resemblyzer")]
    sys.modules |= {"resemblyzer": package, "resemblyzer.audio": audio}
    package.audio = audio  # type: ignore[attr-defined]
    module = importlib.import_module("resemblyzer.voice_encoder")
    encoder: nn.Module = module.VoiceEncoder("cpu", verbose=False)
    return encoder.eval()


def read_wave(path: Path) -> np.ndarray:
    with wave.open(str(path)) as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32) / 2**15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package-folder", type=Path, help="folder that holds resemblyzer; else through pip")
    parser.add_argument("--wav", type=Path, nargs="+", help="recordings of 16 kHz; else some of LibriVox, through apt")
    parser.add_argument("--form", default="fused", choices=("loop", "scan", "fused"), help="how the LSTM is written")
    parser.add_argument("--out", type=Path, default=Path("runs/voices.onnx"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as the runtime
    folder = arguments.package_folder or pip_package("Resemblyzer", "0.1.4")
    checkpoint = torch.load(folder / "resemblyzer" / "pretrained.pt", map_location="cpu", weights_only=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    report = export(
        Encoder(checkpoint["model_state"]).eval(), arguments.out, torch.rand(2, 7, MELS), form=arguments.form
    )
    print(report)
    model, theirs = runtime.load(arguments.out), their_encoder(folder)

    waves = arguments.wav or sorted((debian_package("pocketsphinx-testdata") / SPEECH).glob("[lc]*/*.wav"))
    recordings = [mel_frames(read_wave(path)) for path in waves]
    with torch.inference_mode():
        expected = np.concatenate([theirs(torch.from_numpy(frames)[None]).numpy() for frames in recordings])
    voices = model.run(recordings)
    worst = np.abs(voices - expected).max()
    with model.stream() as stream:
        for at in range(0, len(recordings[0]), FRAMES):
            voice = stream.push(recordings[0][at : at + FRAMES])
    print(f"{len(waves)} recordings: largest difference to the package's vectors {worst:.1e}, ", end="")
    print(f"streamed in chunks {np.abs(voice - expected[0]).max():.1e}")
    assert worst < 1e-5, "the vectors are not those of the package"
    print("likeness of voices (1 is the same):")
    for path, row in zip(waves, voices @ voices.T, strict=True):
        print(f"  {path.stem[-24:]:>24} " + " ".join(f"{value:.2f}" for value in row))

    parts = np.stack([frames[at : at + FRAMES] for frames in recordings for at in range(0, len(frames) - FRAMES, 40)])
    tensors = torch.from_numpy(parts)
    with torch.inference_mode():
        print(f"speed, {len(parts)} parts of 1.6 s:")
        side_by_side(
            {
                "the package, one after another": lambda: [theirs(part[None]) for part in tensors],
                "our file, one after another": lambda: [model.run(part[None]) for part in parts],
                "the package, all together": lambda: theirs(tensors),
                "our file, all together": lambda: model.run(parts),
            },
            len(parts),
            "part",
        )


if __name__ == "__main__":
    main()
