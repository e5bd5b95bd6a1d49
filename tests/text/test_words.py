"""Vocabularies of words and of pieces of words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime.errors import InputError
from rnncore.text import EOS, UNK, Vocabulary, subword_vocabulary, word_vocabulary

TEXTS = (
    "The apple and the pear, don't you think? (Well-known!)",
    "He said: the apple; the PEAR.\nAnd the rest “of it”…",
    "the the the",
)
WORDS = word_vocabulary(TEXTS)
SUBWORDS = subword_vocabulary(TEXTS, 280)
KNOWN = [WORDS.token(i) for i in range(2, len(WORDS))]


def test_ids_fall_with_frequency() -> None:
    assert [WORDS.token(i) for i in range(4)] == [EOS, UNK, "the", "apple"]
    assert (WORDS.eos_id, WORDS.unk_id) == (0, 1)
    assert {"don't", "Well-known", "“", "…", "\n", "PEAR"} <= set(KNOWN)
    assert not any(" " in token for token in KNOWN)
    assert not WORDS.is_character_level


def test_size_and_least_count_make_words_unknown() -> None:
    small = word_vocabulary(TEXTS, 4)
    assert [small.token(i) for i in range(len(small))] == [EOS, UNK, "the", "apple"]
    assert small.encode("the zebra apple").tolist() == [2, 1, 3]
    twice = word_vocabulary(TEXTS, least_count=2)
    assert "PEAR" in WORDS
    assert "PEAR" not in twice
    assert {"the", "apple"} < {twice.token(i) for i in range(len(twice))}


@given(st.lists(st.sampled_from(KNOWN), max_size=12))
def test_decoded_words_read_back_as_the_same_words(words: list[str]) -> None:
    ids = np.array([WORDS.token_id(word) for word in words], np.int64)
    np.testing.assert_array_equal(WORDS.encode(WORDS.decode(ids)), ids)


@pytest.mark.parametrize("text", [*TEXTS[:2], "The zebra"])
def test_decoding_puts_blanks_where_they_belong(text: str) -> None:
    assert WORDS.decode(WORDS.encode(text)) == text.replace("zebra", UNK)


@given(st.text(max_size=40))
def test_any_text_is_a_sequence_of_words(text: str) -> None:
    ids = WORDS.encode(text)
    assert WORDS.eos_id not in ids, "special tokens are not read from text"
    pieces = WORDS.pieces(text)
    assert len(pieces) == len(ids)
    assert text.startswith("".join(pieces))
    assert text[len("".join(pieces)) :].strip() == ""


@given(st.text(max_size=40))
def test_subwords_give_every_text_back(text: str) -> None:
    ids = SUBWORDS.encode(text)
    assert SUBWORDS.decode(ids) == text
    assert SUBWORDS.eos_id not in ids
    pieces = SUBWORDS.pieces(text)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_subwords_are_longer_than_bytes() -> None:
    assert 257 < len(SUBWORDS) <= 280
    assert len(SUBWORDS.encode("the apple")) <= 4
    assert SUBWORDS.unk_id is None
    assert SUBWORDS.encode(EOS).tolist() != [SUBWORDS.eos_id]


@pytest.mark.parametrize("vocabulary", [WORDS, SUBWORDS], ids=["words", "subwords"])
def test_json_keeps_everything(vocabulary: Vocabulary) -> None:
    twin = Vocabulary.from_json(vocabulary.to_json())
    text = "The apple — and (the) zebra, don't\nyou?"
    np.testing.assert_array_equal(twin.encode(text), vocabulary.encode(text))
    assert twin.decode(twin.encode(text)) == vocabulary.decode(vocabulary.encode(text))
    assert (len(twin), twin.eos_id, twin.unk_id) == (len(vocabulary), vocabulary.eos_id, vocabulary.unk_id)


def test_what_makes_no_vocabulary() -> None:
    with pytest.raises(InputError, match="size of the vocabulary is 2, expected at least 3"):
        word_vocabulary(TEXTS, 2)
    with pytest.raises(InputError, match="hold no word that occurs 9 times"):
        word_vocabulary(TEXTS, least_count=9)
    with pytest.raises(InputError, match="hold no word"):
        word_vocabulary([" ", ""])
    with pytest.raises(InputError, match="size of the vocabulary is 256, expected at least 257"):
        subword_vocabulary(TEXTS, 256)
    with pytest.raises(InputError, match="no character"):
        subword_vocabulary(["", ""])
