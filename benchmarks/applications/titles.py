"""Titles of Debian's packages, English to German: a language pair of short texts, its beam in the file."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.applications.common import Split, Stopwatch, step_us, translator_files
from benchmarks.applications.record import Measured
from rnncore import CellConfig, EncoderDecoder, EncoderDecoderConfig, runtime
from rnncore.text import Vocabulary, subword_vocabulary
from rnncore.training import fit

FLOORS = {"translation, titles English to German": 33.0}
BEAM, LONGEST = 5, 80

Pair = tuple[str, str]
"""An English title and the German one."""


def data(seed: int = 0) -> Split:
    """All titles of a source package stand in one part: those of its libraries and their documentation are much alike."""
    from datasets import titles

    by_source: dict[str, list[Pair]] = defaultdict(list)
    for english, german, source in titles():
        by_source[source].append((english, german))
    sources = sorted(by_source)
    random.Random(seed).shuffle(sources)
    tests, valids = len(sources) // 12, len(sources) // 25
    cuts = (sources[tests + valids :], sources[tests : tests + valids], sources[:tests])
    return Split(*([pair for source in part for pair in by_source[source]] for part in cuts))


def measure() -> list[Measured]:
    parts = data()
    watch = Stopwatch()
    model, english, german = trained(parts.train, parts.valid)
    train_s = watch.seconds
    files = translator_files(model, english, german)
    asked = [title for title, _ in parts.test]

    def said(path: Path) -> list[str]:
        return runtime.Translator.load(path).translate(asked, beam=BEAM, max_tokens=LONGEST)

    translator, found = runtime.Translator.load(files.fp32), said(files.fp32)
    steps = sum(len(english.encode(title)) for title in asked[:100])
    return [
        Measured(
            "translation, titles English to German",
            "titles of Debian's packages and their translations (apt's lists Translation-en and -de), split by source package",
            parts.sizes,
            f"chrF by sacrebleu, {BEAM} beams",
            chrf(found, parts.test),
            None if files.int8 is None else chrf(said(files.int8), parts.test),
            baselines(parts),
            files.sizes,
            train_s,
            step_us(lambda title: translator.translate(title, beam=BEAM, max_tokens=LONGEST), asked[:100], steps),
            "subword",
            more={
                "BLEU": bleu(found, parts.test),
                "chrF without a beam": chrf(translator.translate(asked, max_tokens=LONGEST), parts.test),
            },
            note=files.why,
        )
    ]


def chrf(found: Sequence[str], pairs: Sequence[Pair]) -> float:
    from sacrebleu import corpus_chrf

    return float(corpus_chrf(list(found), [[wanted for _, wanted in pairs]]).score)


def bleu(found: Sequence[str], pairs: Sequence[Pair]) -> float:
    from sacrebleu import corpus_bleu

    return float(corpus_bleu(list(found), [[wanted for _, wanted in pairs]]).score)


def trained(
    train: Sequence[Pair], valid: Sequence[Pair], *, epochs: int = 20
) -> tuple[EncoderDecoder, Vocabulary, Vocabulary]:
    english, german = (subword_vocabulary((pair[side] for pair in train), 1500) for side in (0, 1))
    torch.manual_seed(0)
    cells = (CellConfig.named("gru", 192),)
    config = EncoderDecoderConfig(
        len(english),
        len(german),
        cells,
        cells,
        embedding_size=96,
        dropout=0.3,
        end_id=german.eos_id,
        label_smoothing=0.1,
    )
    model = EncoderDecoder(config)

    def encoded(pairs: Sequence[Pair]) -> list[tuple[list[int], list[int]]]:
        return [(english.encode(a).tolist(), german.encode(b).tolist()) for a, b in pairs]

    fit(
        model,
        encoded(train),
        encoded(valid),
        collate=model.collate,
        epochs=epochs,
        batch=64,
        learning_rate=4e-3,
        average=0.998,
        patience=4,
    )
    return model, english, german


def baselines(parts: Split) -> dict[str, float]:
    """The English title as it is; word by word by a dictionary learnt from the pairs; what the nearest title is translated by."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    asked = [title for title, _ in parts.test]
    dictionary = learnt_dictionary(parts.train)
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    known = vectors.fit_transform([title for title, _ in parts.train])
    nearest = np.asarray((vectors.transform(asked) @ known.T).argmax(1)).ravel()
    return {
        "the English title": chrf(asked, parts.test),
        "word by word, a dictionary of IBM model 1": chrf(
            [word_by_word(title, dictionary) for title in asked], parts.test
        ),
        "translation of the nearest title by TF-IDF": chrf([parts.train[int(i)][1] for i in nearest], parts.test),
    }


def learnt_dictionary(pairs: Sequence[Pair], rounds: int = 6) -> dict[str, str]:
    """The likeliest German word of each English one, small letters, by IBM model 1 (Brown et al. 1993)."""
    texts = [(words(english.lower()), words(german)) for english, german in pairs]
    chances: dict[str, dict[str, float]] = {}
    for turn in range(rounds):
        counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for english, german in texts:
            for target in german:
                shares = [1.0 if not turn else chances[source].get(target, 0.0) for source in english]
                whole = sum(shares) or 1.0
                for source, share in zip(english, shares, strict=True):
                    counts[source][target] += share / whole
        chances = {source: _shares(found) for source, found in counts.items()}
    return {source: max(found, key=found.__getitem__) for source, found in chances.items() if found}


def _shares(counts: dict[str, float]) -> dict[str, float]:
    """Each count by the sum of all; what hardly occurs is left out."""
    whole = sum(counts.values())
    return {name: count / whole for name, count in counts.items() if count > 1e-4}


def words(text: str) -> list[str]:
    return re.findall(r"\w+(?:[.'+-]\w+)*\+*|[^\w\s]", text)


def word_by_word(title: str, dictionary: dict[str, str]) -> str:
    """Each word that the dictionary has is replaced, others stay as they are."""
    return re.sub(r"\w+(?:[.'+-]\w+)*\+*", lambda word: dictionary.get(word[0].lower(), word[0]), title)
