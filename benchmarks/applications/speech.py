"""Telephone prompts of one speaker, wave to letters, by a network of one direction that streams."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.applications.common import Split, Stopwatch, files_of, split, step_us
from benchmarks.applications.record import Measured
from rnncore import CellConfig, ReaderConfig, Recogniser, runtime
from rnncore.runtime import LogMel
from rnncore.training import fit

FLOORS: dict[str, float] = {}
MEL = LogMel(rate=8000, bands=40, stacked=3)
LONGEST_S = 6.0
LETTERS = (*string.ascii_lowercase, " ", "'")

Row = tuple[np.ndarray, str]


def data() -> Split:
    """Split by text: what is tested was never said in training."""
    from datasets import recordings

    spoken = [
        (samples, text) for samples, rate, text in recordings() if rate == MEL.rate and len(samples) <= LONGEST_S * rate
    ]
    texts = split(sorted({text for _, text in spoken}))
    rows = [(MEL(samples), text) for samples, text in spoken]
    return Split(*([row for row in rows if row[1] in set(part)] for part in texts))


def measure() -> list[Measured]:
    parts = data()
    watch = Stopwatch()
    model = trained(parts.train, parts.valid)
    train_s = watch.seconds
    files = files_of(model)
    frames = [row for row, _ in parts.test]
    recogniser = runtime.Recogniser.load(files.fp32)

    def errors(path: object, beams: int | None) -> float:
        return letter_error(runtime.Recogniser.load(path).recognise_many(frames, beams=beams), parts.test)  # type: ignore[arg-type]

    return [
        Measured(
            "speech, one speaker",
            "Debian's asterisk-core-sounds-en (CC-BY-SA-3.0), prompts of at most 6 s, split by text",
            parts.sizes,
            "letter error, streaming, 16 beams",
            errors(files.fp32, 16),
            None if files.int8 is None else errors(files.int8, 16),
            {"always nothing": 1.0, "always the commonest prompt": constant(parts)},
            files.sizes,
            train_s,
            step_us(recogniser.recognise, frames[:40], sum(map(len, frames[:40]))),
            "row of 30 ms",
            reach=0.3,
            lower=True,
            more={"letter error of the likeliest frames": errors(files.fp32, None)},
            note=files.why,
        )
    ]


def letter_error(found: Sequence[str], rows: Sequence[Row]) -> float:
    edits = sum(runtime.edit_distance(got, text) for got, (_, text) in zip(found, rows, strict=True))
    return edits / sum(len(text) for _, text in rows)


def constant(parts: Split) -> float:
    """The one training text that is nearest to all others, as the answer to every prompt."""
    short = sorted({text for _, text in parts.train}, key=len)[:200]
    best = min(short, key=lambda text: letter_error([text] * len(parts.valid), parts.valid))
    return letter_error([best] * len(parts.test), parts.test)


def trained(train: Sequence[Row], valid: Sequence[Row], *, epochs: int = 40) -> Recogniser:
    torch.manual_seed(0)
    cells = (CellConfig.named("gru", 160),) * 2
    model = Recogniser(ReaderConfig(cells, features=MEL.features, dropout=0.2), LETTERS)
    model.reader.standardise(frames for frames, _ in train)
    fit(model, train, valid, collate=model.collate, epochs=epochs, batch=16, learning_rate=4e-3, clip=5.0)
    return model
