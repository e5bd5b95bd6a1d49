"""A vocabulary of tokens that somebody else has cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError, UnknownTokenError
from rnncore.text import EOS, UNK, Vocabulary, character_vocabulary, token_vocabulary, word_vocabulary

ADDRESSES = [["12", "Main", "St."], ["7", "main", "Ave,"], ["41", "7th", "St."]]


def test_tokens_are_counted_folded_and_kept_whole() -> None:
    vocabulary = token_vocabulary(ADDRESSES)
    assert [vocabulary.token(i) for i in range(len(vocabulary))] == [
        *(EOS, UNK),
        *("00", "main", "st.", "0", "0th", "ave,"),
    ]
    assert vocabulary.encode("99 MAIN  ave, Lane").tolist() == [2, 3, 7, 1]


def test_without_folding_capitals_and_digits_tell_apart() -> None:
    vocabulary = token_vocabulary(ADDRESSES, fold=False)
    assert "Main" in vocabulary and "main" in vocabulary and "12" in vocabulary


def test_rare_tokens_are_unknown() -> None:
    assert len(token_vocabulary(ADDRESSES, least_count=2)) == 5
    assert len(token_vocabulary(ADDRESSES, size=3)) == 3
    with pytest.raises(InputError, match="expected at least 3"):
        token_vocabulary(ADDRESSES, size=2)
    with pytest.raises(InputError, match="no token occurs 9 times"):
        token_vocabulary(ADDRESSES, least_count=9)


@given(st.lists(st.text(st.characters(exclude_categories=("Z", "C")), min_size=1), min_size=1, max_size=5))
def test_every_token_is_one_id_before_and_after_saving(tokens: list[str]) -> None:
    vocabulary = token_vocabulary([tokens])
    again = Vocabulary.from_json(vocabulary.to_json())
    for words in (tokens, [EOS], ["<unk>"], ["another", *tokens]):
        ids = vocabulary.encode(" ".join(words)).tolist()
        assert len(ids) == len(words)
        assert ids == again.encode(" ".join(words)).tolist()
        assert vocabulary.eos_id not in ids


@given(st.lists(st.text(min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=5), st.booleans())
def test_a_list_of_tokens_has_one_id_for_each_whatever_is_inside(tokens: list[str], strip: bool) -> None:
    try:
        vocabulary = token_vocabulary([tokens], strip=strip)
    except InputError:  # nothing but tokens that spell <unk>
        return
    again = Vocabulary.from_json(vocabulary.to_json())
    ids = vocabulary.encode_tokens(tokens)
    assert ids.shape == (len(tokens),) and ids.dtype == "int64"
    assert vocabulary.eos_id not in ids
    assert ids.tolist() == again.encode_tokens(tokens).tolist()
    for token, one in zip(tokens, ids.tolist(), strict=True):
        alone = vocabulary.encode(token)
        if len(alone) == 1:
            assert alone.tolist() == [one]
        elif len(alone) > 1 and EOS not in token:  # blanks inside: known, since the vocabulary was made of it
            assert one != vocabulary.unk_id or UNK in token


def test_tokens_with_blanks_are_tokens_where_a_list_holds_them() -> None:
    vocabulary = token_vocabulary([["New York", "is", "big"], ["York"]], fold=False)
    assert vocabulary.encode_tokens(["New York\r"]).tolist() == vocabulary.encode_tokens([" New York"]).tolist()
    asked = ["New York", " is ", "New", "", "San Francisco", "York", EOS]
    known = [vocabulary.token(i) for i in vocabulary.encode_tokens(asked).tolist()]
    assert known == ["New York", "is", UNK, UNK, UNK, "York", UNK]
    assert len(vocabulary.encode("New York")) == 2  # a text is cut at blanks
    assert vocabulary.encode_tokens([]).shape == (0,)


def test_what_other_tokenizers_would_cut_is_refused_by_its_place() -> None:
    letters = character_vocabulary(["abc "])
    assert letters.encode_tokens(list("cab")).tolist() == letters.encode("cab").tolist()
    with pytest.raises(UnknownTokenError, match=r"item 4: token 1 is 'ab'"):
        letters.encode_tokens(["a", "ab", "c"], where="item 4: ")
    with pytest.raises(UnknownTokenError, match="token 0 is 'road,'"):
        word_vocabulary(["a road, a lane"]).encode_tokens(["road,"])
    with pytest.raises(InputError, match="one text where several"):
        letters.encode_tokens("abc")
