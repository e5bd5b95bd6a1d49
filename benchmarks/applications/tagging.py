"""What the taggers share: their network and its training, a CRF of python-crfsuite as baseline, F1 of spans."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from rnncore import CellConfig, ReaderConfig, Tagger
from rnncore.runtime import Affixes, count_spans
from rnncore.text import Vocabulary
from rnncore.training import fit

Tagged = tuple[list[str], list[str]]


class Hyper(NamedTuple):
    """Sizes and settings of a tagger's training; ``average`` as of ``fit``, and then dropout is variational."""

    hidden: int
    embedding: int
    epochs: int
    batch: int
    learning_rate: float
    average: float = 0.0


def train_tagger(
    train: Sequence[Tagged], valid: Sequence[Tagged], vocabulary: Vocabulary, affixes: Affixes, hyper: Hyper
) -> Tagger:
    """A bidirectional LSTM that reads words and their first and last letters, under a CRF."""
    labels = sorted({tag for part in (train, valid) for _, tags in part for tag in tags})
    torch.manual_seed(0)
    cells = (CellConfig.named("lstm", hyper.hidden),)
    config = ReaderConfig(
        cells,
        len(vocabulary),
        embedding_size=hyper.embedding,
        bidirectional=True,
        dropout=0.5,
        variational=bool(hyper.average),
    )
    model = Tagger(config, labels, crf=True, affixes=affixes)

    def encoded(part: Sequence[Tagged]) -> list[tuple[object, object, list[str]]]:
        return [(vocabulary.encode_tokens(tokens), affixes.ids(tokens), tags) for tokens, tags in part]

    fit(
        model,
        encoded(train),
        encoded(valid),
        collate=model.collate,
        epochs=hyper.epochs,
        batch=hyper.batch,
        learning_rate=hyper.learning_rate,
        clip=5.0,
        average=hyper.average,
        keep="last" if hyper.average else "best",
    )
    return model


def span_f1(found: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> float:
    return count_spans(found, wanted).f1


def commonest_tags(train: Sequence[Tagged], test: Sequence[Tagged]) -> float:
    """F1 of giving every token the tag that it has most often, and an unknown one the commonest of all."""
    counts: dict[str, Counter[str]] = {}
    for tokens, tags in train:
        for token, tag in zip(tokens, tags, strict=True):
            counts.setdefault(token.lower(), Counter())[tag] += 1
    total = sum(counts.values(), Counter())
    found = [[counts.get(token.lower(), total).most_common(1)[0][0] for token in tokens] for tokens, _ in test]
    return span_f1(found, [tags for _, tags in test])


def crf_f1(
    train: Sequence[Tagged], test: Sequence[Tagged], features: Callable[[Sequence[str], int], list[str]]
) -> float:
    """F1 of a linear-chain CRF on hand-made features, with the settings of its documentation."""
    import pycrfsuite

    trainer = pycrfsuite.Trainer(verbose=False)
    for tokens, tags in train:
        trainer.append([features(tokens, i) for i in range(len(tokens))], tags)
    trainer.set_params({"c1": 0.1, "c2": 0.01, "max_iterations": 100, "feature.possible_transitions": True})
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "crf")
        trainer.train(path)
        tagger = pycrfsuite.Tagger()
        tagger.open(path)
        found = [tagger.tag([features(tokens, i) for i in range(len(tokens))]) for tokens, _ in test]
        tagger.close()
    return span_f1(found, [tags for _, tags in test])


def word_features(words: Sequence[str], i: int) -> list[str]:
    """What is commonly told of a word and its neighbours: itself, its ends, its shape, its place."""
    found = [] if i else ["first"]
    found += ["last"] if i == len(words) - 1 else []
    for place in range(max(0, i - 2), min(len(words), i + 3)):
        word, where = words[place], place - i
        low = word.lower()
        shape = "".join("0" if c.isdigit() else "X" if c.isupper() else "x" if c.isalpha() else c for c in word)
        found += [f"{where}:w={low}", f"{where}:shape={shape[:8]}"]
        if abs(where) <= 1:
            found += [
                f"{where}:s3={low[-3:]}",
                f"{where}:s2={low[-2:]}",
                f"{where}:p2={low[:2]}",
                f"{where}:n={len(low)}",
            ]
    return found


def character_features(text: Sequence[str], i: int) -> list[str]:
    """A window of characters, their pairs and kinds."""
    found = []
    for place in range(i - 3, i + 4):
        c = text[place] if 0 <= place < len(text) else "␀"
        found += [f"{place - i}:c={c}", f"{place - i}:kind={kind(c)}"]
        if abs(place - i) < 3 and 0 <= place < len(text) - 1:
            found.append(f"{place - i}:cc={text[place]}{text[place + 1]}")
    return found


def kind(c: str) -> str:
    """The script of a Japanese character, roughly."""
    if c.isdigit():
        return "digit"
    for name, low, high in (("hiragana", 0x3040, 0x309F), ("katakana", 0x30A0, 0x30FF), ("kanji", 0x4E00, 0x9FFF)):
        if low <= ord(c) <= high:
            return name
    return "letter" if c.isalpha() else "other"
