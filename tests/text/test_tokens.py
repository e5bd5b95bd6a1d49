"""A vocabulary of tokens that somebody else has cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError
from rnncore.text import EOS, UNK, Vocabulary, token_vocabulary

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
