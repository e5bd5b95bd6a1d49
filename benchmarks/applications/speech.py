"""Telephone prompts of one speaker, wave to letters, by a network of one direction that streams."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.applications.common import Split, Stopwatch, files_of, split, step_us
from benchmarks.applications.prompt_language import SENTENCES, language_model, sentences
from benchmarks.applications.record import Measured
from benchmarks.applications.varied_speech import Varied
from rnncore import CellConfig, ReaderConfig, Recogniser, runtime
from rnncore.runtime import BeamOptions, LogMel
from rnncore.training import fit

FLOORS = {"speech, one speaker": 0.295, "speech, one speaker, with a language model": 0.195}
MEL = LogMel(rate=8000, bands=40, stacked=3)
LONGEST_S = 6.0
"""Of the prompts that choose and test; longer ones are learnt from."""
FIRST_S = 4.0
"""Longest prompts that are learnt from at the beginning."""
LETTERS = (*string.ascii_lowercase, " ", "'")
BEAMS = 16
WEIGHTS, BONUSES = (0.5, 0.8, 1.1, 1.4), (1.0, 1.5, 2.0, 2.5)
"""Of the language model, and of a label for each unit of that weight: what is tried."""

Row = tuple[np.ndarray, str]


def data() -> Split:
    """(wave, text), split by text: what is tested was never said in training."""
    from datasets import recordings

    spoken = [(wave, text) for wave, rate, text in recordings() if rate == MEL.rate]
    short = [row for row in spoken if len(row[0]) <= LONGEST_S * MEL.rate]
    texts = split(sorted({text for _, text in short}))
    asked = {*texts.valid, *texts.test}
    return Split(
        [row for row in spoken if row[1] not in asked],
        *([row for row in short if row[1] in set(part)] for part in texts[1:]),
    )


def measure() -> list[Measured]:
    parts = data()
    watch = Stopwatch()
    model = trained(parts.train, parts.valid)
    return rows(model, parts, watch.seconds)


def rows(model: Recogniser, parts: Split, train_s: float) -> list[Measured]:
    """What the files of ``model`` find in the test prompts, without and with a language model."""
    files = files_of(model)
    texts = [sorted({text for _, text in part}) for part in (parts.train, parts.valid)]
    watch = Stopwatch()
    prompts = language_model(LETTERS, *texts, sentences(SENTENCES))
    language_s = watch.seconds
    recogniser = runtime.Recogniser.load(files.fp32)
    options = best_fusion(recogniser, prompts, parts.valid)
    frames = [MEL(wave) for wave, _ in parts.test]

    def error(path: Path, beams: int | BeamOptions | None) -> float:
        return letter_error(runtime.Recogniser.load(path).recognise_many(frames, beams=beams), parts.test)

    likeliest = error(files.fp32, None)
    plain = Measured(
        "speech, one speaker",
        "Debian's asterisk-core-sounds-en (CC-BY-SA-3.0), prompts of at most 6 s, split by text; longer ones are learnt from",
        parts.sizes,
        f"letter error, streaming, {BEAMS} beams",
        error(files.fp32, BEAMS),
        None if files.int8 is None else error(files.int8, BEAMS),
        {"always the commonest prompt": constant(parts)},
        files.sizes,
        train_s,
        step_us(recogniser.recognise, frames[:40], sum(map(len, frames[:40]))),
        "row of 30 ms",
        reach=0.3,
        lower=True,
        more={
            "letter error of the likeliest frames": likeliest,
            "prompts whose text is the same when the wave comes in pieces": as_it_comes(recogniser, parts.test),
        },
        note="One direction: nothing looks ahead. Many texts are of one form, so those to test resemble some to learn from. "
        "Varying the recordings much until the end left 0.411 of the letters of the validation prompts wrong (by the likeliest "
        "frames; after the two rounds of slight variation 0.291); three layers had found no letter after eight epochs. "
        f"{files.why}".strip(),
    )
    fused = replace(
        plain,
        name="speech, one speaker, with a language model",
        data=f"the same; a language model of characters of the prompts to learn from and {SENTENCES:,} other sentences",
        metric=f"letter error, streaming, {BEAMS} beams",
        fp32=error(files.fp32, options),
        int8=None if files.int8 is None else error(files.int8, options),
        baselines={"without it": plain.fp32},
        train_s=train_s + language_s,
        step_us=step_us(
            partial(recogniser.recognise, beams=options), frames[:40], sum(map(len, frames[:40])), rounds=1
        ),
        reach=0.22,
        more={},
        note=f"Shallow fusion, weight {options.weight} and bonus {options.bonus} by the validation prompts. "
        "The sizes are those of the recogniser.",
    )
    return [plain, fused]


def best_fusion(recogniser: runtime.Recogniser, prompts: runtime.LanguageModel, valid: Sequence[Row]) -> BeamOptions:
    """Weight and bonus with the fewest errors in ``valid``: first the weight, then the bonus."""
    frames = [MEL(wave) for wave, _ in valid]

    def error(options: BeamOptions) -> float:
        return letter_error(recogniser.recognise_many(frames, beams=options), valid)

    best = min((BeamOptions(BEAMS, prompts, weight, 2 * weight) for weight in WEIGHTS), key=error)
    return min((replace(best, bonus=best.weight * factor) for factor in BONUSES), key=error)


def as_it_comes(recogniser: runtime.Recogniser, rows: Sequence[Row], piece_s: float = 0.25) -> float:
    """Which part of the waves has the text of the whole one when it is read in pieces."""
    same = 0
    for wave, _ in rows:
        bands, size = MEL.stream(), round(piece_s * MEL.rate)
        with recogniser.beam_stream(BEAMS) as stream:
            for start in range(0, len(wave), size):
                stream.push(bands.push(wave[start : start + size]))
            same += stream.finish().text == recogniser.recognise(MEL(wave), beams=BEAMS)
    return same / len(rows)


def letter_error(found: Sequence[str], rows: Sequence[Row]) -> float:
    edits = sum(runtime.edit_distance(got, text) for got, (_, text) in zip(found, rows, strict=True))
    return edits / sum(len(text) for _, text in rows)


def constant(parts: Split) -> float:
    """The one training text that is nearest to all others, as the answer to every prompt."""
    short = sorted({text for _, text in parts.train}, key=len)[:200]
    best = min(short, key=lambda text: letter_error([text] * len(parts.valid), parts.valid))
    return letter_error([best] * len(parts.test), parts.test)


def trained(
    train: Sequence[Row], valid: Sequence[Row], *, hidden: int = 320, epochs: tuple[int, int, int] = (12, 60, 25)
) -> Recogniser:
    """Learnt from the short prompts first, as they are: where a letter stands in a long one is hard to guess at the beginning.

    Then from all of them, varied much, and in the end varied little, twice: the learning rate rises once more between.
    """
    torch.manual_seed(0)
    cells = (CellConfig.named("gru", hidden),) * 2
    model = Recogniser(ReaderConfig(cells, features=MEL.features, dropout=0.25), LETTERS)
    model.reader.standardise(MEL(wave) for wave, _ in train)
    held_out = [(MEL(wave), text) for wave, text in valid]
    first = [(MEL(wave), text) for wave, text in train if len(wave) < FIRST_S * MEL.rate]
    step = partial(fit, model, held_out=held_out, collate=model.collate, clip=5.0)
    step(training=first, epochs=epochs[0], batch=16, learning_rate=4e-3, schedule="constant")
    step(training=Varied(train, MEL), epochs=epochs[1], batch=12, learning_rate=4e-3, average=0.995)
    for variations, order in ((1, 0), (2, 2)):
        slight = Varied(train, MEL, strength=0.3, seed=variations)
        step(training=slight, epochs=epochs[2], batch=8, learning_rate=2e-3, average=0.99, seed=order)
    return model
