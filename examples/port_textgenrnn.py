"""Write texts with the trained model of textgenrnn, Keras weights as cuDNN has them: python examples/port_textgenrnn.py

``repack`` reads the two CuDNNLSTM layers out of the HDF5 file; embedding, attention over time and output layer are a few
lines of PyTorch; the file that is exported writes character after character without it.  TensorFlow is not needed and
not asked: the probabilities are compared with those of Keras's equations in NumPy, in float64, which take the weights
from the file in another way: as the flat buffers that cuDNN is handed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import h5py
import numpy as np
import torch
from datasets import pip_package
from timing import side_by_side
from torch import nn

from rnncore import LSTMCell, Recurrent, repack, runtime
from rnncore.export import export

WINDOW, EPSILON, META = (
    40,
    1e-7,
    "<s>",
)  # textgenrnn's max_length, Keras's epsilon, textgenrnn's begin and end of a text
Weights = dict[str, dict[str, np.ndarray]]


def read_weights(path: Path) -> Weights:
    """{"rnn_1": {"kernel": array, ...}, ...} of a file of ``Model.save_weights``."""
    with h5py.File(path) as file:
        return {
            name: {entry.split(":")[0]: array[:] for entry, array in layer[name].items()}
            for name, layer in file.items()
            if name in layer
        }


class TextGenRnn(nn.Module):
    """Ids [batch, time] -> probabilities [batch, characters] of the next one."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.from_numpy(weights["embedding"]["embeddings"]))
        layers = []
        for name in sorted(name for name in weights if name.startswith("rnn_")):
            own = repack(weights[name], "lstm", "keras_cudnn")
            cell = LSTMCell(own["weight_ih"].shape[1], own["weight_hh"].shape[1])
            cell.load_state_dict({key: torch.from_numpy(array) for key, array in own.items()})
            layers.append(Recurrent(cell))
        self.layers = nn.ModuleList(layers)
        self.attention = nn.Parameter(torch.from_numpy(weights["attention"]["attention_W"]))
        self.kernel = nn.Parameter(torch.from_numpy(weights["output"]["kernel"]))
        self.bias = nn.Parameter(torch.from_numpy(weights["output"]["bias"]))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found = [self.embedding(ids)]
        for layer in self.layers:
            found.append(layer(found[-1])[0])
        x = torch.cat(found, dim=2)
        share = torch.softmax(x @ self.attention, dim=1)
        return torch.softmax((x * share).sum(1) @ self.kernel + self.bias, dim=1)


def by_keras_equations(weights: Weights, ids: np.ndarray) -> np.ndarray:
    """Probabilities [characters] for one window [time], in float64."""
    found = [weights["embedding"]["embeddings"][ids].astype(np.float64)]
    for name in sorted(name for name in weights if name.startswith("rnn_")):
        layer = weights[name]
        units = len(layer["recurrent_kernel"])
        inputs = [k.ravel().reshape(units, -1).astype(np.float64) for k in np.hsplit(layer["kernel"], 4)]
        recurrent = [
            k.ravel().reshape(units, units).astype(np.float64) for k in np.hsplit(layer["recurrent_kernel"], 4)
        ]
        bias = np.split(layer["bias"].astype(np.float64).reshape(2, -1).sum(0), 4)
        h, c, y = np.zeros(units), np.zeros(units), []
        for x in found[-1]:
            i, f, g, o = (w @ x + r @ h + b for w, r, b in zip(inputs, recurrent, bias, strict=True))
            c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
            y.append(h)
        found.append(np.array(y))
    x = np.concatenate(found, axis=1)
    share = x @ weights["attention"]["attention_W"][:, 0]
    share = np.exp(share - share.max())
    scores = (x * (share / (share.sum() + EPSILON))[:, None]).sum(0) @ weights["output"]["kernel"]
    odds = np.exp(scores + weights["output"]["bias"])
    return odds / odds.sum()


def window(text: list[int]) -> np.ndarray:
    """The last characters, zeros before them."""
    return np.array([0] * WINDOW + text)[-WINDOW:]


def write(model: runtime.Model, ids: dict[str, int], temperature: float, seed: int, most: int = 200) -> str:
    random, text, signs = np.random.default_rng(seed), [ids[META]], {i: sign for sign, i in ids.items()}
    while len(text) < most:
        scores = np.log(model.run(window(text)[None])[0].astype(np.float64) + EPSILON) / temperature
        scores[0] = -np.inf  # the padding is no character
        odds = np.exp(scores - scores.max())
        text.append(int(random.choice(len(odds), p=odds / odds.sum())))
        if text[-1] == ids[META]:
            break
    return "".join(signs[i] for i in text).replace(META, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package-folder", type=Path, help="folder that holds textgenrnn; else through pip")
    parser.add_argument("--texts", type=int, default=5, help="how many to write")
    parser.add_argument("--temperature", type=float, default=0.5)
    parser.add_argument("--form", default="fused", choices=("loop", "scan", "fused"), help="how the LSTMs are written")
    parser.add_argument("--out", type=Path, default=Path("runs/textgenrnn.onnx"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as the runtime
    folder = (arguments.package_folder or pip_package("textgenrnn", "2.0.0", source=True)) / "textgenrnn"
    weights = read_weights(folder / "textgenrnn_weights.hdf5")
    ids: dict[str, int] = json.loads((folder / "textgenrnn_vocab.json").read_text("utf-8"))
    module = TextGenRnn(weights).eval()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export(module, arguments.out, torch.randint(len(ids), (2, WINDOW)), form=arguments.form))
    model = runtime.load(arguments.out)

    texts = [write(model, ids, arguments.temperature, seed) for seed in range(arguments.texts)]
    print("\n".join(f"  {text}" for text in texts))
    written = [[ids[META], *(ids[sign] for sign in text)] for text in texts]
    windows = np.array([window(text[:n]) for text in written for n in range(1, len(text), 7)])
    expected = np.array([by_keras_equations(weights, ids) for ids in windows])
    worst = np.abs(model.run(windows) - expected).max()
    print(f"largest difference of a probability to Keras's equations, {len(windows)} windows: {worst:.1e}")
    assert worst < 1e-5, "the probabilities are not those of Keras's equations"
    tensors = torch.from_numpy(windows)
    with torch.inference_mode():
        side_by_side(
            {
                "the same module in PyTorch, one by one": lambda: [module(one[None]) for one in tensors],
                "our file, one by one": lambda: [model.run(one[None]) for one in windows],
                "the same module in PyTorch, together": lambda: module(tensors),
                "our file, together": lambda: model.run(windows),
            },
            len(windows),
            "character",
            rounds=3,
        )


if __name__ == "__main__":
    main()
