"""Tell positive from negative sentences (many to one): python examples/classify_sentiment.py

Trains a GRU with attention pooling on sentences that people rated, exports it, and classifies with the file, without
PyTorch.  The words it has not met in training are read as ``<unk>``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import ratings, split

from rnncore import CellConfig, Classifier, ReaderConfig, runtime
from rnncore.export import export_model
from rnncore.text import word_vocabulary
from rnncore.training import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="a folder of vaderSentiment's tables; fetched through pip unless given"
    )
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/sentiment.onnx"))
    arguments = parser.parse_args()
    rated = [(text.lower(), rating) for text, rating in ratings(arguments.data) if abs(rating) > 0.5]
    training, held_out = split([(text, "positive" if rating > 0 else "negative") for text, rating in rated])
    vocabulary = word_vocabulary((text for text, _ in training), least_count=2, lowercase=True)

    torch.manual_seed(0)
    config = ReaderConfig(
        (CellConfig.named("gru", 96),), len(vocabulary), embedding_size=96, bidirectional=True, dropout=0.5
    )
    model = Classifier(config, ["negative", "positive"], pooling="attention")

    def encoded(examples: list[tuple[str, str]]) -> list[tuple[object, str]]:
        return [(vocabulary.encode(text), label) for text, label in examples]

    held = encoded(held_out)
    report = fit(model, encoded(training), held, collate=model.collate, epochs=arguments.epochs, learning_rate=3e-3)
    most = max(sum(label == one for _, label in held) for one in model.labels) / len(held)
    print(
        f"PyTorch: {report.best.metrics['accuracy']:.1%} of {len(held)} held-out sentences (always the same: {most:.1%})"
    )

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export_model(model, arguments.out, vocabulary=vocabulary))
    classifier = runtime.Classifier.load(arguments.out)
    found = classifier.classify_many([text for text, _ in held_out])
    right = sum(got == label for got, (_, label) in zip(found, held_out, strict=True))
    print(f"the file: {right / len(found):.1%}")
    batch = model.collate(held)
    assert found == [model.labels[i] for i in model(batch["x"], batch["lengths"]).argmax(1).tolist()]
    for text in ("a gripping film with a wonderful cast", "the plot is dull and the battery died after a day"):
        print(f"{text}: {classifier.probabilities(text)['positive']:.0%} positive")


if __name__ == "__main__":
    main()
