"""Write reels, jigs and hornpipes (one to many): python examples/generate_music.py

Trains a generator on 19th-century tunes in ABC notation, character by character, with the kind of tune as its condition;
exports it, and writes new tunes with the file, without PyTorch.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from datasets import split, tunes

from rnncore import CellConfig, Generator, ReaderConfig, runtime
from rnncore.export import export_model
from rnncore.text import character_vocabulary
from rnncore.training import fit

LONGEST = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="music21's folder `corpus`; fetched through pip unless given")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--samples", type=int, default=20, help="tunes of each kind to look at the metre of")
    parser.add_argument("--out", type=Path, default=Path("runs/music.onnx"))
    arguments = parser.parse_args()
    examples = [(tune, kind) for tune, kind in tunes(arguments.data) if len(tune) <= LONGEST]
    training, held_out = split(examples)
    vocabulary = character_vocabulary(tune for tune, _ in examples)

    torch.manual_seed(0)
    config = ReaderConfig((CellConfig.named("lstm", 128),), len(vocabulary), embedding_size=32)
    model = Generator(config, ["hornpipe", "jig", "reel"], eos_id=vocabulary.eos_id)

    def encoded(examples: list[tuple[str, str]]) -> list[tuple[object, str]]:
        return [(vocabulary.encode(tune), kind) for tune, kind in examples]

    fit(
        model,
        encoded(training),
        encoded(held_out),
        collate=model.collate,
        epochs=arguments.epochs,
        batch=32,
        learning_rate=1e-2,
    )
    batch = model.collate(encoded(held_out))
    bits, count = model.metrics(**batch)["bits"]
    print(f"PyTorch: {bits / count:.4f} bits a character of {len(held_out)} held-out tunes")

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export_model(model, arguments.out, vocabulary=vocabulary))
    generator = runtime.Generator.load(arguments.out)
    again = generator.bits([tune for tune, _ in held_out], [kind for _, kind in held_out])
    print(f"the file: {again:.4f} bits a character")
    assert math.isclose(again, bits / count, rel_tol=1e-4)
    for kind in generator.labels:
        written = [generator.generate(kind, LONGEST, temperature=0.7, seed=i) for i in range(arguments.samples)]
        jigs = sum(tune.startswith(("M:6/8", "M:9/8", "M: 6/8")) for tune in written)
        print(
            f"{jigs} of {len(written)} tunes written as a {kind} have the metre of a jig; the first one:\n{written[0]}\n"
        )


if __name__ == "__main__":
    main()
