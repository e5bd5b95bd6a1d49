"""Activities from a watch, and speakers from vowels: two sets of series."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from benchmarks.applications.common import Split, Stopwatch, files_of, split, step_us
from benchmarks.applications.record import Measured
from rnncore import CellConfig, Classifier, ReaderConfig, runtime
from rnncore.training import fit

Row = tuple[np.ndarray, str]


class Task(NamedTuple):
    """A set of the UEA archive and the model for it; pooling "last" decides while it streams.

    frame: so many samples are one step.
    """

    title: str
    pooling: str
    hidden: int
    epochs: int
    learning_rate: float
    reach: float
    note: str = ""
    frame: int = 1


TASKS = {
    "BasicMotions": Task(
        "activity, BasicMotions",
        "statistics",
        32,
        25,
        1e-2,
        0.98,
        "Pooling by mean and deviation was chosen by the validation set (loss 0.05, of the mean alone 0.30), after the test set "
        "had been asked once with the mean alone: 0.900.",
    ),
    "JapaneseVowels": Task(
        "speaker, JapaneseVowels",
        "mean",
        48,
        20,
        6e-3,
        0.98,
        "Pooling by mean and deviation has a lower validation loss (0.061, this 0.084) and the same validation accuracy, but "
        "only 0.968 of the test set, which has so been asked twice; the row stays the one that was measured first.",
    ),
}
FLOORS = {"activity, BasicMotions": 0.97, "speaker, JapaneseVowels": 0.97}


def measure() -> list[Measured]:
    return [one(name, task) for name, task in TASKS.items()]


def data(name: str) -> Split:
    """The archive's own test set; every fifth of the archive's training set validates."""
    from datasets import series

    train, test = series(name, "TRAIN"), series(name, "TEST")
    held = {sample.tobytes() for sample, _ in train}
    parts = split(train, valid=0.2, test=0.0, seed=1)
    return Split(parts.train, parts.valid, [row for row in test if row[0].tobytes() not in held])


def one(name: str, task: Task) -> Measured:
    parts = Split(*([(framed(row, task.frame), label) for row, label in part] for part in data(name)))
    watch = Stopwatch()
    model = trained(task, parts)
    train_s = watch.seconds
    files = files_of(model)
    rows, labels = [row for row, _ in parts.test], [label for _, label in parts.test]

    def accuracy(path: object) -> float:
        found = runtime.Classifier.load(path).classify_many(rows)  # type: ignore[arg-type]
        return float(np.mean([a == b for a, b in zip(found, labels, strict=True)]))

    return Measured(
        task.title,
        f"{name} of aeon 1.6.0 (BSD-3; UEA archive), its own test set",
        parts.sizes,
        "accuracy",
        accuracy(files.fp32),
        None if files.int8 is None else accuracy(files.int8),
        baselines(parts),
        files.sizes,
        train_s,
        step_us(runtime.Classifier.load(files.fp32).classify, rows[:40], sum(map(len, rows[:40]))),
        "sample" if task.frame == 1 else f"frame of {task.frame} samples",
        reach=task.reach,
        note=f"{task.note} {files.why}".strip(),
    )


def framed(row: np.ndarray, frame: int) -> np.ndarray:
    """[time, channels] as [time / frame, frame x channels]; samples that fill no frame are left out."""
    steps = len(row) // frame
    return row[: steps * frame].reshape(steps, -1)


def trained(task: Task, parts: Split) -> Classifier:
    labels = sorted({label for _, label in parts.train})
    torch.manual_seed(0)
    config = ReaderConfig(
        (CellConfig.named("gru", task.hidden),),
        features=parts.train[0][0].shape[1],
        bidirectional=task.pooling != "last",
        dropout=0.2,
    )
    model = Classifier(config, labels, pooling=task.pooling)
    model.reader.standardise(row for row, _ in parts.train)
    fit(
        model,
        parts.train,
        parts.valid,
        collate=model.collate,
        epochs=task.epochs,
        batch=8,
        learning_rate=task.learning_rate,
    )
    return model


def baselines(parts: Split) -> dict[str, float]:
    """Always the commonest class, and a random forest on mean, deviation, extremes and quarters of each channel."""
    from sklearn.ensemble import RandomForestClassifier

    labels, wanted = [label for _, label in parts.train], np.array([label for _, label in parts.test])
    forest = RandomForestClassifier(500, random_state=0).fit(summaries(parts.train), labels)
    return {
        "always the commonest": float((wanted == max(sorted(set(labels)), key=labels.count)).mean()),
        "statistics + random forest": float((forest.predict(summaries(parts.test)) == wanted).mean()),
    }


def summaries(rows: list[Row]) -> np.ndarray:
    found = []
    for row, _ in rows:
        quarters = [part.mean(0) for part in np.array_split(row, 4)]
        moves = np.abs(np.diff(row, axis=0)).mean(0)
        found.append(np.concatenate([row.mean(0), row.std(0), row.min(0), row.max(0), moves, *quarters]))
    return np.array(found)
