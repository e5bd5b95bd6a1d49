"""Titles word by word: names come back as they were, and no pair is read with what only it tells."""

from __future__ import annotations

import random
import zlib

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.applications import described, glosses
from benchmarks.applications.glosses import Gloss

WORDS = ("red", "house", "libfoo2", "GTK+", "a", "the", "KDE", "x86")
TITLES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join)
DICTIONARY = {"red": "rotes", "house": "Haus", "a": "ein"}


def test_names_are_signs_and_come_back() -> None:
    gloss = Gloss.of("red KDE-house of GTK+ and KDE", DICTIONARY)
    assert gloss == ("rotes ① ② ③ ④ ⑤", ("KDE-house", "of", "GTK+", "and", "KDE"))
    assert gloss.hidden("rotes KDE-Haus für GTK+, KDEs") == "rotes ⑤-Haus für ③, KDEs"
    assert gloss.shown("⑤-Haus von ③ ⑨") == "KDE-Haus von GTK+ "


@given(seed=st.integers(0, 99), words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=20))
def test_errors_are_words_missing_or_next_to_their_place(seed: int, words: list[str]) -> None:
    numbered = [f"{word}{i}" for i, word in enumerate(words)]
    found = glosses.with_errors(" ".join(numbered), random.Random(seed)).split(" ")
    assert found and set(found) <= set(numbered) and len(set(found)) == len(found)
    ranks = [sorted(found, key=numbered.index).index(word) for word in found]
    assert all(abs(rank - place) <= 1 for place, rank in enumerate(ranks))


@given(title=TITLES)
def test_what_is_hidden_is_shown(title: str) -> None:
    gloss = Gloss.of(title, DICTIONARY)
    assert gloss.shown(gloss.text) == glosses.word_by_word(title, DICTIONARY)
    assert gloss.shown(gloss.hidden(title)) == title
    assert not set(gloss.names) & DICTIONARY.keys()


def test_no_pair_is_read_with_what_only_it_tells() -> None:
    pairs = [
        ("a house", "ein Haus"),
        ("a door", "eine Tür"),
        ("a house here", "ein Haus hier"),
        ("a roof", "ein Dach"),
    ] * 3
    alone = [*pairs, ("unheardof", "unerhört")]
    packages = [f"package{i}" for i in range(len(alone))]
    read = glosses.glossed(alone, packages)
    assert read[-1] == ("①", "unerhört")
    assert "unerhört" in glosses.learnt_dictionary(alone).values()
    assert len({zlib.crc32(name.encode()) % glosses.FOLDS for name in packages}) > 1
    assert read[0][0].endswith("Haus")


def test_sentences_are_taken_where_both_texts_have_as_many() -> None:
    english = "A cat. It sleeps.  Two of them here.  This one is the last."
    german = "Eine Katze. Sie schläft.  Zwei davon. Hier.  Das ist die letzte."
    assert described.aligned(english, german) == [
        ("A cat.", "Eine Katze."),
        ("It sleeps.", "Sie schläft."),
        ("This one is the last.", "Das ist die letzte."),
    ]
    assert described.aligned(english, "Eine Katze.") == []
    assert described.aligned("Same.", "Same.") == []
