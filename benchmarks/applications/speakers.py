"""Speakers that no training has heard, by how they say one vowel: each third of nine speakers in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.applications.common import Stopwatch, files_of, step_us
from benchmarks.applications.record import Measured
from rnncore import CellConfig, Embedder, ReaderConfig, runtime

FLOORS = {"embeddings, speakers never heard": 0.93}
FOLDS = (("1", "2", "3"), ("4", "5", "6"), ("7", "8", "9"))
CHANNELS = 12
SHRINKAGES = (None, 0.03, 0.1, 0.3, 1.0)

Row = tuple[np.ndarray, str]


def measure() -> list[Measured]:
    from datasets import series

    rows = [*series("JapaneseVowels", "TRAIN"), *series("JapaneseVowels", "TEST")]
    scores: dict[str, list[float]] = {}
    ways: list[str] = []
    nearest, seconds, vectors_a_second, steps = [], 0.0, 0.0, 0.0
    for new in FOLDS:
        train, test = ([row for row in rows if (row[1] in new) == wanted] for wanted in (False, True))
        labels = [label for _, label in test]
        recordings = [one for one, _ in test]
        for name, vectors in pooled(train, recordings).items():
            scores.setdefault(name, []).append(average_precision(vectors, labels))
        watch = Stopwatch()
        model = untrained(train)
        scores.setdefault("the same, untrained", []).append(
            average_precision(model.vectors(recordings).numpy(), labels)
        )
        shrinkage = chosen(train)
        if shrinkage is not None:
            model.whiten(train, shrinkage=shrinkage)
        seconds += watch.seconds
        ways.append("none" if shrinkage is None else f"{shrinkage:g}")
        files = files_of(model, accuracy_data=None)
        for name, path in (("fp32", files.fp32), ("int8", files.int8)):
            if path is not None:
                found = runtime.Embedder.load(path).embed_many(recordings)
                scores.setdefault(name, []).append(average_precision(found, labels))
        embedder = runtime.Embedder.load(files.fp32)
        vectors = embedder.embed_many(recordings)
        own = [labels[pair[1].place] for pair in runtime.nearest(vectors, vectors, 2, normalised=True)]
        nearest.append(float(np.mean([a == b for a, b in zip(own, labels, strict=True)])))
        watch = Stopwatch()
        embedder.embed_many(recordings)
        vectors_a_second = len(recordings) / watch.seconds
        steps = step_us(embedder.embed, recordings[:50], sum(map(len, recordings[:50])))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    fp32, int8 = means.pop("fp32"), means.pop("int8", None)
    return [
        Measured(
            "embeddings, speakers never heard",
            "JapaneseVowels of aeon 1.6.0 (UEA archive): both parts joined; six speakers to learn from, three to find, "
            "each third in turn",
            (len(rows) * 2 // 3, 0, len(rows) // 3),
            "mean average precision",
            fp32,
            int8 if len(scores.get("int8", ())) == len(FOLDS) else None,
            means,
            files.sizes,
            seconds,
            steps,
            "frame",
            more={"the nearest is of the same speaker": float(np.mean(nearest)), "vectors a second": vectors_a_second},
            note="Layers as they were initialised, statistics pooling, and Embedder.whiten by the labels of the six speakers. "
            "Whether to whiten, and how much to shrink, is chosen among these six by holding out two in turn "
            f"({', '.join(ways)}); that these layers and this pooling are taken at all was settled while looking at the "
            f"thirds, which have {', '.join(f'{value:.3f}' for value in scores['fp32'])}.",
        )
    ]


def chosen(train: Sequence[Row]) -> float | None:
    """The shrinkage of whitening, None for none, that tells those speakers best who are held out: two of ``train`` in turn."""
    labels = sorted({label for _, label in train})
    scores = dict.fromkeys(SHRINKAGES, 0.0)
    for held in zip(labels[::2], labels[1::2], strict=True):
        known, new = ([row for row in train if (row[1] in held) == wanted] for wanted in (False, True))
        recordings, own = [one for one, _ in new], [label for _, label in new]
        for shrinkage in SHRINKAGES:
            model = untrained(known)
            if shrinkage is not None:
                model.whiten(known, shrinkage=shrinkage)
            scores[shrinkage] += average_precision(model.vectors(recordings).numpy(), own)
    return max(scores, key=lambda shrinkage: scores[shrinkage])


def untrained(train: Sequence[Row], seed: int = 0) -> Embedder:
    torch.manual_seed(seed)
    config = ReaderConfig((CellConfig.named("gru", 64),), features=CHANNELS, bidirectional=True)
    model = Embedder(config, 64, pooling="statistics")
    model.reader.standardise(one for one, _ in train)
    return model


def pooled(train: Sequence[Row], recordings: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """What needs no network: pooled features, standardised over all frames to learn from."""
    frames = np.concatenate([one for one, _ in train])
    mean, deviation = frames.mean(0), frames.std(0)
    ways: dict[str, Callable[[np.ndarray], Any]] = {
        "mean pooling": lambda one: one.mean(0),
        "mean and deviation": lambda one: np.concatenate((one.mean(0), one.std(0))),
    }
    return {name: np.stack([way((one - mean) / deviation) for one in recordings]) for name, way in ways.items()}


def average_precision(vectors: np.ndarray, labels: Sequence[str]) -> float:
    """Mean over all vectors as queries: how far ahead those of its label are among all others, by cosine."""
    names = np.array(labels)
    scores = runtime.cosines(vectors, vectors)
    found = []
    for i, row in enumerate(scores):
        order = [j for j in np.argsort(-row, kind="stable") if j != i]
        right = names[order] == names[i]
        found.append(float((np.cumsum(right) / np.arange(1, len(right) + 1))[right].mean()))
    return float(np.mean(found))
