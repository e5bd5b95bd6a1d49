"""Named entities in Japanese newspaper sentences, cut into morphemes: a tagger with affixes, a CRF and BIO rules."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.applications.common import Split, Stopwatch, files_of, split, step_us, without_duplicates
from benchmarks.applications.record import Measured
from benchmarks.applications.tagging import Hyper, Tagged, commonest_tags, crf_f1, kind, span_f1, train_tagger
from rnncore import Tagger, runtime
from rnncore.runtime import Affixes
from rnncore.text import Vocabulary, token_vocabulary

FLOORS = {"named entities, Japanese": 0.65}


def data() -> Split:
    from datasets import pip_package

    path = pip_package("hironsancorpus", "0.1.2", source=True) / "hironsan" / "corpus" / "iob_sents.txt"
    blocks = path.read_text("utf-8").strip().split("\n\n")
    rows = [[_columns(line) for line in block.splitlines() if line] for block in blocks]
    sentences = [([word for word, _ in row], mended([tag for _, tag in row])) for row in rows if row]
    return split(without_duplicates(sentences, key=lambda one: "".join(one[0])), valid=0.15, test=0.2)


def _columns(line: str) -> tuple[str, str]:
    """(word, tag); a wide blank, which is a word of its own, as a mark that is no blank."""
    word, *_, tag = line.split("\t")
    return word.replace("\u3000", "＿"), tag


def mended(tags: list[str]) -> list[str]:
    """``I-`` that begins a span becomes ``B-``: what the CoNLL script reads it as, and the CRF rules out."""
    found: list[str] = []
    for tag in tags:
        before = found[-1] if found else "O"
        found.append("B-" + tag[2:] if tag.startswith("I-") and before[2:] != tag[2:] else tag)
    return found


def features(words: Sequence[str], i: int) -> list[str]:
    """Words and kinds of characters around, ends of the word."""
    found = []
    for place in range(max(0, i - 2), min(len(words), i + 3)):
        word, where = words[place], place - i
        found += [f"{where}:w={word}", f"{where}:kinds={''.join(sorted({kind(c) for c in word}))}"]
        if abs(where) <= 1:
            found += [f"{where}:last={word[-1]}", f"{where}:first={word[0]}", f"{where}:n={min(len(word), 5)}"]
        if place < i + 2 and place + 1 < len(words):
            found.append(f"{where}:ww={word}|{words[place + 1]}")
    return found


def measure() -> list[Measured]:
    parts = data()
    watch = Stopwatch()
    model, vocabulary = trained(parts.train, parts.valid)
    train_s = watch.seconds
    files = files_of(model, vocabulary=vocabulary)
    words, wanted = [tokens for tokens, _ in parts.test], [tags for _, tags in parts.test]

    def f1(path: object) -> float:
        return span_f1(runtime.Tagger.load(path).tag_many(words), wanted)  # type: ignore[arg-type]

    return [
        Measured(
            "named entities, Japanese",
            "iob_sents.txt of hironsancorpus 0.1.2 (MIT): morphemes as the corpus cuts them, their parts of speech unused",
            parts.sizes,
            "F1 of entities",
            f1(files.fp32),
            None if files.int8 is None else f1(files.int8),
            {
                "commonest tag of each word": commonest_tags(parts.train, parts.test),
                "CRF (python-crfsuite), hand-made features": crf_f1(parts.train, parts.test, features),
            },
            files.sizes,
            train_s,
            step_us(runtime.Tagger.load(files.fp32).tag, words, sum(map(len, wanted))),
            "morpheme",
            reach=0.596,
            note=files.why,
        )
    ]


def trained(train: Sequence[Tagged], valid: Sequence[Tagged], *, epochs: int = 40) -> tuple[Tagger, Vocabulary]:
    vocabulary = token_vocabulary((tokens for tokens, _ in train), least_count=2)
    affixes = Affixes.of((word for tokens, _ in train for word in tokens), prefix=3, suffix=3)
    return train_tagger(
        train, valid, vocabulary, affixes, Hyper(128, 100, epochs, batch=24, learning_rate=6e-3, average=0.99)
    ), vocabulary
