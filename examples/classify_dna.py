"""Find the borders of exons in DNA (many to one): python examples/classify_dna.py

Each sequence has 60 bases; in its middle, marked "|", an exon ends ("ei"), begins ("ie"), or neither ("n").
Trains a bidirectional GRU, exports it, and classifies with the file, without PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import splice_junctions, split

from rnncore import CellConfig, Classifier, ReaderConfig, runtime
from rnncore.export import export_model
from rnncore.text import character_vocabulary
from rnncore.training import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="mlbench's DNA.rda; fetched through apt unless given")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/dna.onnx"))
    arguments = parser.parse_args()
    # A mark where the border would be: a network that reads both ways is not told where it is otherwise.
    rows = [(f"{bases[:30]}|{bases[30:]}", label) for bases, label in splice_junctions(arguments.data)]
    training, held_out = split(list(dict(rows).items()))  # equal sequences stand in one of them only
    vocabulary = character_vocabulary(["ACGT|"], lowercase=True)

    torch.manual_seed(0)
    cells = (CellConfig.named("gru", 64),)
    config = ReaderConfig(cells, len(vocabulary), embedding_size=8, bidirectional=True, dropout=0.2)
    model = Classifier(config, ["ei", "ie", "n"], pooling="attention")

    def encoded(examples: list[tuple[str, str]]) -> list[tuple[object, str]]:
        return [(vocabulary.encode(bases), label) for bases, label in examples]

    held = encoded(held_out)
    report = fit(model, encoded(training), held, collate=model.collate, epochs=arguments.epochs, learning_rate=5e-3)
    print(f"PyTorch: {report.best.metrics['accuracy']:.1%} of {len(held)} held-out sequences")

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export_model(model, arguments.out, vocabulary=vocabulary))
    classifier = runtime.Classifier.load(arguments.out)
    found = classifier.classify_many([bases for bases, _ in held_out])
    right = sum(got == label for got, (_, label) in zip(found, held_out, strict=True))
    print(f"the file: {right / len(found):.1%}")
    batch = model.collate(held)
    assert found == [model.labels[i] for i in model(batch["x"], batch["lengths"]).argmax(1).tolist()]


if __name__ == "__main__":
    main()
