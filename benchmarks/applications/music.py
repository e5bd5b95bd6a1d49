"""Reels, jigs and hornpipes in ABC notation: what a character costs, and whether new tunes are music to music21."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from benchmarks.applications.common import Split, Stopwatch, files_of, split, step_us, without_duplicates
from benchmarks.applications.kneser_ney import KneserNey
from benchmarks.applications.record import Measured
from rnncore import CellConfig, Generator, ReaderConfig, runtime
from rnncore.text import Vocabulary, character_vocabulary
from rnncore.training import fit

FLOORS = {"music, a style to a tune": 1.85}
KINDS = ("hornpipe", "jig", "reel")
LONGEST, WRITTEN, TEMPERATURE = 450, 100, 0.7
ORDERS = (4, 6, 8)
NOTE = (
    f"New tunes are drawn at temperature {TEMPERATURE}, as they come: nothing is mended or thrown away. A bar is full if its "
    "notes fill its metre; the first and the last bar of a tune are not asked, for they may share one. Kneser-Ney is not "
    "told the style. The validation tunes cost 1.849 bits a character; 100 of 100 tunes of another seed were read at "
    "temperature 0.7 as at 0.5, with 0.854 and 0.811 of their bars full, and none had all the notes of a tune that was "
    "trained with. The test set was asked once before, by 192 units after seven epochs: 2.057 bits, 86 of 100 tunes, 0.850."
)
ALPHABET = "".join(map(chr, (10, *range(32, 127))))

Tune = tuple[str, str]


class Read(NamedTuple):
    """What music21 makes of tunes: how many it reads, and the part of their bars that have the length of their metre."""

    parsed: int
    full_bars: float


def data() -> Split:
    """Tunes whose notes are equal stand in one part, whatever the spaces between them."""
    from datasets import tunes

    short = [tune for tune in tunes() if len(tune[0]) <= LONGEST]
    return split(without_duplicates(short, key=lambda tune: "".join(tune[0].split("\n", 3)[-1].split())))


def measure() -> list[Measured]:
    parts = data()
    watch = Stopwatch()
    model, vocabulary = trained(parts.train, parts.valid)
    train_s = watch.seconds
    files = files_of(model, vocabulary=vocabulary)
    tunes, kinds = [tune for tune, _ in parts.test], [kind for _, kind in parts.test]
    generator = runtime.Generator.load(files.fp32)
    wanted = [KINDS[i % len(KINDS)] for i in range(WRITTEN)]
    ours = read(generator.generate_many(wanted, LONGEST, temperature=TEMPERATURE, seed=0))
    theirs = read(tunes[:WRITTEN])
    more = {
        f"new tunes of {WRITTEN} that music21 reads": ours.parsed,
        "full bars of new tunes": ours.full_bars,
        f"the books' tunes of {WRITTEN} that it reads": theirs.parsed,
        "full bars of the books' tunes": theirs.full_bars,
    }
    return [
        Measured(
            "music, a style to a tune",
            "ryansMammoth and oneills1850 of music21 10.5.0, tunes of up to 450 characters, equal notes merged",
            parts.sizes,
            "bits a character",
            generator.bits(tunes, kinds),
            None if files.int8 is None else runtime.Generator.load(files.int8).bits(tunes, kinds),
            baselines(parts, vocabulary),
            files.sizes,
            train_s,
            step_us(lambda tune: generator.log_prob(*tune), parts.test[:30], sum(len(tune) + 1 for tune in tunes[:30])),
            "character",
            lower=True,
            more=more,
            note=f"{NOTE} {files.why}".strip(),
        )
    ]


def trained(train: Sequence[Tune], valid: Sequence[Tune], *, epochs: int = 16) -> tuple[Generator, Vocabulary]:
    vocabulary = character_vocabulary([ALPHABET])
    torch.manual_seed(0)
    config = ReaderConfig(
        (CellConfig.named("lstm", 256),),
        len(vocabulary),
        embedding_size=32,
        dropout=0.3,
        variational=True,
        weight_drop=0.2,
    )
    model = Generator(config, KINDS, eos_id=vocabulary.eos_id)

    def encoded(tunes: Sequence[Tune]) -> list[tuple[object, str]]:
        return [(vocabulary.encode(tune), kind) for tune, kind in tunes]

    fit(
        model,
        encoded(train),
        encoded(valid),
        collate=model.collate,
        epochs=epochs,
        batch=8,
        learning_rate=5e-3,
        average=0.995,
    )
    return model, vocabulary


def baselines(parts: Split, vocabulary: Vocabulary) -> dict[str, float]:
    """Kneser-Ney of some orders, on the same characters; the first one knows only how often each occurs."""
    known, asked = ([vocabulary.encode(tune).tolist() for tune, _ in part] for part in (parts.train, parts.test))
    count = sum(len(tune) + 1 for tune in asked)
    found = {}
    for order in (1, *ORDERS):
        model = KneserNey(known, order, vocabulary.eos_id, len(vocabulary))
        bits = -sum(map(model.log_prob, asked)) / math.log(2) / count
        found["how often each character occurs" if order == 1 else f"Kneser-Ney {order}"] = bits
    return found


def read(tunes: Sequence[str]) -> Read:
    from music21 import converter, meter, stream

    parsed = full = bars = 0
    for tune in tunes:
        try:
            score = converter.parse(f"X: 1\n{tune}\n", format="abc")
        except Exception:  # of any kind: whatever stops music21 has not been read
            continue
        measures = list(score.recurse().getElementsByClass(stream.Measure))
        if not measures or not list(score.recurse().notes):
            continue
        parsed += 1
        metre = next(iter(score.recurse().getElementsByClass(meter.TimeSignature)), None)
        for bar in measures[1:-1]:
            metre = next(iter(bar.getElementsByClass(meter.TimeSignature)), metre)
            bars += 1
            full += metre is not None and abs(bar.duration.quarterLength - metre.barDuration.quarterLength) < 1e-6
    return Read(parsed, full / max(1, bars))
