"""Recognise what somebody with a smartwatch does (many to one): python examples/recognise_activity.py

Trains a GRU on six channels of acceleration and rotation, exports it, classifies whole recordings with the file, and
then one as a stream, without PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import series

from rnncore import CellConfig, Classifier, ReaderConfig, runtime
from rnncore.export import export_model
from rnncore.training import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of BasicMotions_TRAIN.ts and _TEST.ts; else through pip")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("runs/activity.onnx"))
    arguments = parser.parse_args()
    training, held_out = (series("BasicMotions", part, arguments.data) for part in ("TRAIN", "TEST"))

    torch.manual_seed(0)
    config = ReaderConfig((CellConfig.named("gru", 32),), features=training[0][0].shape[1], dropout=0.1)
    model = Classifier(config, sorted({label for _, label in training}), pooling="last")
    model.reader.standardise(recording for recording, _ in training)
    report = fit(
        model,
        training,
        held_out,
        collate=model.collate,
        epochs=arguments.epochs,
        batch=8,
        learning_rate=5e-3,
        patience=15,
    )
    print(f"PyTorch: {report.best.metrics['accuracy']:.1%} of {len(held_out)} held-out recordings")

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export_model(model, arguments.out))
    classifier = runtime.Classifier.load(arguments.out)
    found = classifier.classify_many([recording for recording, _ in held_out])
    right = sum(got == label for got, (_, label) in zip(found, held_out, strict=True))
    print(f"the file: {right / len(found):.1%}")
    batch = model.collate(held_out)
    assert found == [model.labels[i] for i in model(batch["x"], batch["lengths"]).argmax(1).tolist()]

    recording, label = held_out[-1]
    with classifier.stream() as stream:  # as the samples come from the watch, 10 Hz
        for start in range(0, len(recording), 20):
            probabilities = stream.push(recording[start : start + 20])
            best = max(probabilities, key=probabilities.__getitem__)
            print(f"after {start / 10 + 2:.0f} s: {best} ({probabilities[best]:.0%})")
    print(f"right: {label}; the whole recording at once: {found[-1]}")


if __name__ == "__main__":
    main()
