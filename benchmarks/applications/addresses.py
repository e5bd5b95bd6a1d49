"""Fields of US addresses, word by word: a tagger with affixes and a CRF."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.applications.common import Split, Stopwatch, files_of, split, step_us, without_duplicates
from benchmarks.applications.record import Measured
from benchmarks.applications.tagging import Hyper, Tagged, commonest_tags, crf_f1, span_f1, train_tagger, word_features
from rnncore import Tagger, runtime
from rnncore.runtime import Affixes
from rnncore.text import Vocabulary, token_vocabulary

FLOORS = {"addresses, fields": 0.915}


EXTRA = 2000
"""Addresses of one county, of the same package, that are only trained with."""


def data() -> tuple[Split, list[Tagged]]:
    from datasets import addresses, pip_package

    labelled = without_duplicates(addresses(), key=text_of)
    folder = pip_package("usaddress", "0.5.16", source=True) / "training"
    county = without_duplicates(addresses(folder / "openaddress_us_ia_linn.xml"), key=text_of)
    known = set(map(text_of, labelled))
    random.Random(1).shuffle(county)
    return split(labelled), [one for one in county if text_of(one) not in known][:EXTRA]


def text_of(one: Tagged) -> str:
    return " ".join(one[0]).lower()


def measure() -> list[Measured]:
    parts, extra = data()
    watch = Stopwatch()
    model, vocabulary = trained([*parts.train, *extra], parts.valid)
    train_s = watch.seconds
    files = files_of(model, vocabulary=vocabulary)
    texts, wanted = [" ".join(tokens) for tokens, _ in parts.test], [tags for _, tags in parts.test]

    def f1(path: object) -> float:
        return span_f1(runtime.Tagger.load(path).tag_many(texts), wanted)  # type: ignore[arg-type]

    return [
        Measured(
            "addresses, fields",
            f"labeled.xml of usaddress 0.5.16 (MIT), equal addresses merged; {EXTRA} of openaddress_us_ia_linn.xml are "
            "trained with as well",
            parts.sizes,
            "F1 of fields",
            f1(files.fp32),
            None if files.int8 is None else f1(files.int8),
            {
                "commonest tag of each word": commonest_tags(parts.train, parts.test),
                "CRF (python-crfsuite), hand-made features": crf_f1(parts.train, parts.test, word_features),
                "the same with the extra addresses": crf_f1([*parts.train, *extra], parts.test, word_features),
            },
            files.sizes,
            train_s,
            step_us(runtime.Tagger.load(files.fp32).tag, texts, sum(map(len, wanted))),
            "word",
            reach=0.93,
            note=files.why,
        )
    ]


def trained(train: Sequence[Tagged], valid: Sequence[Tagged], *, epochs: int = 15) -> tuple[Tagger, Vocabulary]:
    vocabulary = token_vocabulary((tokens for tokens, _ in train), least_count=2, strip=True)
    affixes = Affixes.of(word for tokens, _ in train for word in tokens)
    return train_tagger(
        train, valid, vocabulary, affixes, Hyper(96, 64, epochs, batch=48, learning_rate=8e-3)
    ), vocabulary
