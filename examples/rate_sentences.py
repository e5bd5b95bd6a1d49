"""Rate sentences from -4 (very negative) to 4 (very positive), word by word: python examples/rate_sentences.py

Trains an LSTM on the mean rating that twenty people gave each sentence (many to one, a number instead of a class), exports
it, and rates with the file, without PyTorch: whole sentences, and one as it is typed, with the rating after every word.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from datasets import ratings, split

from rnncore import CellConfig, Rater, ReaderConfig, runtime
from rnncore.export import export_model
from rnncore.text import word_vocabulary
from rnncore.training import fit

SENTENCE = "i loved the book but the film is awful"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="a folder of vaderSentiment's tables; fetched through pip unless given"
    )
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/ratings.onnx"))
    arguments = parser.parse_args()
    training, held_out = split([(text.lower(), rating) for text, rating in ratings(arguments.data)])
    vocabulary = word_vocabulary((text for text, _ in training), least_count=2, lowercase=True)

    torch.manual_seed(0)
    config = ReaderConfig((CellConfig.named("lstm", 128),), len(vocabulary), embedding_size=96, dropout=0.5)
    model = Rater(config, -4, 4, pooling="last")

    def encoded(examples: list[tuple[str, float]]) -> list[tuple[object, float]]:
        return [(vocabulary.encode(text), rating) for text, rating in examples]

    held = encoded(held_out)
    report = fit(model, encoded(training), held, collate=model.collate, epochs=arguments.epochs, learning_rate=3e-3)
    wanted = np.array([rating for _, rating in held_out])
    middle = float(np.median([rating for _, rating in training]))
    constant = np.abs(wanted - middle).mean()
    error = report.best.metrics["absolute_error"]
    print(
        f"PyTorch: off by {error:.3f} on average on {len(held)} held-out sentences (always {middle:.1f}: {constant:.3f})"
    )

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export_model(model, arguments.out, vocabulary=vocabulary))
    rater = runtime.Rater.load(arguments.out)
    found = np.array(rater.rate_many([text for text, _ in held_out]))
    correlation = np.corrcoef(found, wanted)[0, 1]
    print(f"the file: off by {np.abs(found - wanted).mean():.3f}, correlation with people's ratings {correlation:.2f}")
    batch = model.collate(held)
    with torch.no_grad():
        np.testing.assert_allclose(found, model(batch["x"], batch["lengths"]), atol=1e-4)
    with rater.stream() as stream:
        words = SENTENCE.split()
        print(" ".join(f"{word} ({stream.push(word):+.1f})" for word in words))
    assert abs(rater.rate(SENTENCE) - rater.rate_many([SENTENCE])[0]) < 1e-5


if __name__ == "__main__":
    main()
