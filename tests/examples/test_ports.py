"""The ports of networks that others trained, with small random weights in place of the real ones and the same names.

What stands for the packages is written here; the real ones are fetched when the examples are run by hand.
"""

from __future__ import annotations

import json
import re
import wave
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.examples.conftest import Run
from tests.runtime.foreign_files import vad_file

pytestmark = pytest.mark.slow

G2P = """
import numpy as np


class G2p:
    def __init__(self):
        self.phonemes = ["<pad>", "<unk>", "<s>", "</s>", "A", "B", "C", "D", "E", "F", "G"]
        self.w = np.load(__file__.replace("g2p.py", "checkpoint20.npz"))

    def step(self, half, i, h):
        w = {name[4:]: self.w[name] for name in self.w if name.startswith(half)}
        (ir, iz, new), (hr, hz, hn) = (np.split(m @ v + b, 3) for m, v, b in (
            (w["w_ih"], w["emb"][i], w["b_ih"]), (w["w_hh"], h, w["b_hh"])))
        r, z = 1 / (1 + np.exp(-ir - hr)), 1 / (1 + np.exp(-iz - hz))
        return (1 - z) * np.tanh(new + r * hn) + z * h

    def predict(self, word):
        h, said, last = np.zeros(self.w["enc_w_hh"].shape[1]), [], 2
        for i in [*(3 + ord(letter) - ord("a") for letter in word), 2]:
            h = self.step("enc", i, h)
        for _ in range(20):
            h = self.step("dec", last, h)
            last = int(np.argmax(self.w["fc_w"] @ h + self.w["fc_b"]))
            if last == 3:
                break
            said.append(self.phonemes[last])
        return said
"""

VOICE_ENCODER = """
from pathlib import Path

import torch
from resemblyzer import audio


class VoiceEncoder(torch.nn.Module):
    def __init__(self, device, verbose):
        super().__init__()
        self.lstm = torch.nn.LSTM(40, 6, 3, batch_first=True)
        self.linear = torch.nn.Linear(6, 5)
        self.load_state_dict(torch.load(Path(__file__).with_name("pretrained.pt"))["model_state"], strict=False)

    def forward(self, mels):
        raw = torch.relu(self.linear(self.lstm(mels)[1][0][-1]))
        return raw / torch.norm(raw, dim=1, keepdim=True)
"""


def write_noise(path: Path, seconds: float) -> Path:
    samples = np.random.default_rng(int(seconds * 10)).normal(0, 3000, int(16_000 * seconds)).astype("<i2")
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(samples.tobytes())
    return path


def test_silero_vad(main: Run, tmp_path: Path) -> None:
    folder = tmp_path / "silero_vad" / "data"
    folder.mkdir(parents=True)
    (folder / "silero_vad.onnx").write_bytes(vad_file())
    waves = [write_noise(tmp_path / f"{i}.wav", i + 0.3) for i in (1, 2)]
    out = main("port_silero_vad", "--package-folder", tmp_path, "--wav", *waves, "--streams", 3)
    assert "largest difference to the package's own calls, all at once: " in out
    assert "our streams, all at once" in out


def test_g2p(main: Run, tmp_path: Path) -> None:
    random, folder = np.random.default_rng(2), tmp_path / "g2p_en"
    folder.mkdir()
    sizes = {"emb": 5, "hidden": 7}
    arrays = {"fc_w": random.normal(size=(11, 7)), "fc_b": random.normal(size=11)}
    for half, count in (("enc", 29), ("dec", 11)):
        shapes = {"emb": (count, 5), "w_ih": (21, sizes["emb"]), "w_hh": (21, sizes["hidden"]), "b_ih": 21, "b_hh": 21}
        arrays |= {f"{half}_{name}": random.normal(size=shape) for name, shape in shapes.items()}
    np.savez(folder / "checkpoint20.npz", **{name: array.astype(np.float32) for name, array in arrays.items()})
    (folder / "__init__.py").touch()
    (folder / "g2p.py").write_text(G2P)
    words = tmp_path / "words"
    words.write_text("\n".join("".join(chr(97 + i) for i in random.integers(0, 26, n)) for n in range(1, 25)))
    out = main("port_g2p", "--package-folder", tmp_path, "--words", words, "--out", tmp_path / "out")
    assert "24 of 24 words have the phonemes of the package" in out
    assert len(set(re.findall(r"(?m)^  [a-z]+: (.*)$", out))) > 1


def test_resemblyzer(main: Run, tmp_path: Path) -> None:
    torch.manual_seed(3)
    folder = tmp_path / "resemblyzer"
    folder.mkdir()
    lstm, linear = torch.nn.LSTM(40, 6, 3), torch.nn.Linear(6, 5)
    with torch.no_grad():
        linear.bias.fill_(0.5)  # not all zero after the relu
    state = {f"lstm.{name}": w for name, w in lstm.state_dict().items()}
    state |= {f"linear.{name}": w for name, w in linear.state_dict().items()} | {"similarity_bias": torch.ones(1)}
    torch.save({"model_state": state}, folder / "pretrained.pt")
    (folder / "voice_encoder.py").write_text(VOICE_ENCODER)
    waves = [write_noise(tmp_path / f"{i}.wav", i + 0.3) for i in (2, 3)]
    out = main("port_resemblyzer", "--package-folder", tmp_path, "--wav", *waves, "--out", tmp_path / "voices.onnx")
    assert "2 recordings: largest difference to the package's vectors" in out
    assert "our file, all together" in out


def test_textgenrnn(main: Run, tmp_path: Path) -> None:
    random, folder = np.random.default_rng(4), tmp_path / "textgenrnn"
    folder.mkdir()
    signs, width, units = ["<s>", *"abcdefghij "], 5, 3
    shapes = {
        "embedding": {"embeddings:0": (len(signs) + 1, width)},
        "rnn_1": {"kernel:0": (width, 4 * units), "recurrent_kernel:0": (units, 4 * units), "bias:0": (8 * units,)},
        "rnn_2": {"kernel:0": (units, 4 * units), "recurrent_kernel:0": (units, 4 * units), "bias:0": (8 * units,)},
        "attention": {"attention_W:0": (width + 2 * units, 1)},
        "output": {"kernel:0": (width + 2 * units, len(signs) + 1), "bias:0": (len(signs) + 1,)},
    }
    with h5py.File(folder / "textgenrnn_weights.hdf5", "w") as file:
        file.create_group("rnn_concat")
        for layer, arrays in shapes.items():
            for name, shape in arrays.items():
                file[f"{layer}/{layer}/{name}"] = random.normal(size=shape).astype(np.float32)
    vocabulary = {sign: i + 1 for i, sign in enumerate(signs)}
    (folder / "textgenrnn_vocab.json").write_text(json.dumps(vocabulary))
    out = main("port_textgenrnn", "--package-folder", tmp_path, "--texts", 2, "--out", tmp_path / "text.onnx")
    assert "largest difference of a probability to Keras's equations" in out
