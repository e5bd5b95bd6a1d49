"""Tag the parts of US addresses (many to many): python examples/tag_addresses.py

Trains a bidirectional GRU on addresses that people labelled: words, the first and last letters of each, and a CRF that
chooses the tags of an address together.  Exports it, and tags with the file, without PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import addresses, split

from rnncore import CellConfig, ReaderConfig, Tagger, runtime
from rnncore.export import export_model
from rnncore.runtime import Affixes
from rnncore.text import token_vocabulary
from rnncore.training import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an XML file of usaddress; fetched through pip unless given")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("runs/addresses.onnx"))
    arguments = parser.parse_args()
    training, held_out = split(addresses(arguments.data))
    vocabulary = token_vocabulary((tokens for tokens, _ in training), least_count=2, strip=True)
    affixes = Affixes.of(word for tokens, _ in training for word in tokens)
    labels = sorted({tag for _, tags in training for tag in tags})
    held_out = [(tokens, tags) for tokens, tags in held_out if set(tags) <= set(labels)]

    torch.manual_seed(0)
    cells = (CellConfig.named("gru", 96),)
    config = ReaderConfig(cells, len(vocabulary), embedding_size=96, bidirectional=True, dropout=0.3)
    model = Tagger(config, labels, crf=True, affixes=affixes)

    def encoded(examples: list[tuple[list[str], list[str]]]) -> list[tuple[object, object, list[str]]]:
        return [(vocabulary.encode_tokens(tokens), affixes.ids(tokens), tags) for tokens, tags in examples]

    fit(model, encoded(training), encoded(held_out), collate=model.collate, epochs=arguments.epochs, learning_rate=5e-3)
    batch = model.collate(encoded(held_out))
    counts = {name: total / count for name, (total, count) in model.metrics(**batch).items()}
    f1 = 2 * counts["precision"] * counts["recall"] / (counts["precision"] + counts["recall"])
    print(f"PyTorch: {counts['accuracy']:.1%} of {int(batch['lengths'].sum())} tokens right, F1 of fields {f1:.3f}")

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export_model(model, arguments.out, vocabulary=vocabulary))
    tagger = runtime.Tagger.load(arguments.out)
    tagged = tagger.tag_many([tokens for tokens, _ in held_out])
    pairs = [pair for got, (_, tags) in zip(tagged, held_out, strict=True) for pair in zip(got, tags, strict=True)]
    spans = runtime.count_spans(tagged, [tags for _, tags in held_out])
    print(f"the file: {sum(a == b for a, b in pairs) / len(pairs):.1%} of tokens right, F1 of fields {spans.f1:.3f}")
    best = model(batch["x"], batch["lengths"], batch["letters"]).argmax(2)
    assert tagged == [[labels[i] for i in row[: len(own)]] for row, own in zip(best.tolist(), tagged, strict=True)]
    tokens = held_out[0][0]
    print(", ".join(f"{' '.join(tokens[s.start : s.end])}: {s.label}" for s in tagger.spans(" ".join(tokens))))


if __name__ == "__main__":
    main()
