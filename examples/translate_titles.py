"""Translate short titles, English to German, by pieces of words (many to many): python examples/translate_titles.py

Trains an encoder-decoder with attention on the titles of Debian's packages, which its translators wrote, exports it, and
translates titles of other packages with the file, without PyTorch: a batch of texts and their beams in one call.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from datasets import titles

from rnncore import CellConfig, EncoderDecoder, EncoderDecoderConfig
from rnncore.export import export_translator
from rnncore.runtime import Translator
from rnncore.text import subword_vocabulary
from rnncore.training import fit

Pair = tuple[str, str]


def split(rows: list[tuple[str, str, str]]) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train with, and those of a tenth of the source packages: titles of one package are much alike."""
    sources = sorted({source for _, _, source in rows})
    random.Random(0).shuffle(sources)
    held = set(sources[: max(1, len(sources) // 10)])
    parts: tuple[list[Pair], list[Pair]] = ([], [])
    for english, german, source in rows:
        parts[source in held].append((english, german))
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of Packages and Translation-en, -de; else through apt")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=160)
    parser.add_argument("--out", type=Path, default=Path("runs/titles.onnx"))
    arguments = parser.parse_args()
    training, held_out = split(titles(arguments.data))
    english, german = (subword_vocabulary((pair[side] for pair in training), 1500) for side in (0, 1))

    torch.manual_seed(0)
    cells = (CellConfig.named("gru", arguments.hidden),)
    config = EncoderDecoderConfig(
        len(english), len(german), cells, cells, dropout=0.3, end_id=german.eos_id, label_smoothing=0.1
    )
    model = EncoderDecoder(config)

    def encoded(pairs: list[Pair]) -> list[tuple[list[int], list[int]]]:
        return [(english.encode(a).tolist(), german.encode(b).tolist()) for a, b in pairs]

    fit(
        model,
        encoded(training),
        encoded(held_out),
        collate=model.collate,
        epochs=arguments.epochs,
        batch=64,
        learning_rate=4e-3,
        average=0.998,
    )
    asked, batch = held_out[:200], model.eval().collate(encoded(held_out[:200]))
    by_torch = [german.decode(row) for row in model.greedy(batch["source"], batch["source_lengths"], 60)]

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export_translator(model, arguments.out, source_vocabulary=english, target_vocabulary=german))
    translator = Translator.load(arguments.out)
    found = translator.translate([title for title, _ in asked], max_tokens=60)
    same = sum(a == b for a, b in zip(found, by_torch, strict=True))
    print(f"{same} of {len(found)} answers are PyTorch's")
    wanted = [title for _, title in asked]
    for (title, _), own, right in zip(
        asked[:10], translator.translate([a for a, _ in asked[:10]], beam=5), wanted, strict=False
    ):
        print(f"{title}\n    {own}\n    (a translator: {right})")


if __name__ == "__main__":
    main()
