"""Character vocabularies: nothing is lost, nothing is unknown without being said."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError, ModelFileError, UnknownTokenError
from rnncore.text import EOS, Vocabulary, character_vocabulary

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(TEXT.filter(bool), st.data())
def test_decoding_what_was_encoded_gives_the_text(alphabet: str, data: st.DataObject) -> None:
    vocabulary = character_vocabulary([alphabet])
    text = data.draw(st.text(st.sampled_from(alphabet)))
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int64
    assert ids.shape == (len(text),)
    assert vocabulary.decode(ids) == text
    assert [vocabulary.token(i) for i in ids.tolist()] == list(text)
    assert [vocabulary.token_id(c) for c in text] == ids.tolist()


@given(TEXT.filter(bool))
def test_json_round_trip(alphabet: str) -> None:
    vocabulary = character_vocabulary([alphabet])
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again.to_json() == vocabulary.to_json()
    assert len(again) == len(vocabulary) == len(set(alphabet)) + 1
    assert again.encode(alphabet).tolist() == vocabulary.encode(alphabet).tolist()


def test_ids_are_eos_first_and_then_characters_in_order() -> None:
    vocabulary = character_vocabulary(["cab", "ba\n"])
    assert [vocabulary.token(i) for i in range(len(vocabulary))] == [EOS, "\n", "a", "b", "c"]
    assert vocabulary.eos_id == 0
    assert EOS in vocabulary
    assert "z" not in vocabulary


def test_the_characters_of_eos_in_a_text_are_characters() -> None:
    vocabulary = character_vocabulary(["a<eos>b"])
    ids = Vocabulary.from_json(vocabulary.to_json()).encode("a<eos>b")
    assert len(ids) == 7
    assert vocabulary.eos_id not in ids
    assert vocabulary.decode(ids) == "a<eos>b"


def test_eos_is_left_out_of_decoded_text() -> None:
    vocabulary = character_vocabulary(["ab"])
    assert vocabulary.decode([0, 1, 0, 2, 0]) == "ab"
    assert vocabulary.decode([]) == ""


def test_an_unknown_character_is_named_with_its_place_and_what_to_do() -> None:
    vocabulary = character_vocabulary(["abc"])
    with pytest.raises(
        UnknownTokenError, match=r"'é' \(U\+00E9\) at position 2.*knows 3 characters; replace or remove it"
    ):
        vocabulary.encode("abéc")
    with pytest.raises(UnknownTokenError, match=r"'é'.*position 1, 'x'.*position 3: .*them"):
        vocabulary.encode("aéax")
    with pytest.raises(UnknownTokenError, match="and 2 more"):
        vocabulary.encode("1234567")
    with pytest.raises(UnknownTokenError, match="'é'"):
        vocabulary.token_id("é")
    with pytest.raises(UnknownTokenError, match=r"U\+D800"):
        vocabulary.encode("\ud800")
    with pytest.raises(UnknownTokenError, match="'ab' is not one"):
        vocabulary.token_id("ab")
    assert vocabulary.encode("abc").tolist() == [1, 2, 3], "still usable after an error"


@pytest.mark.parametrize(
    ("ids", "message"),
    [([4], "4 to 4, expected 0 to 3"), ([-1], "-1 to -1"), ([0.5], "float64"), ([[1]], r"shape \(1, 1\)")],
)
def test_wrong_ids_are_refused(ids: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        character_vocabulary(["abc"]).decode(np.asarray(ids))


def test_wrong_texts_are_refused() -> None:
    with pytest.raises(InputError, match="no character"):
        character_vocabulary(["", ""])
    with pytest.raises(InputError, match="surrogates"):
        character_vocabulary(["a\udcff"])
    with pytest.raises(InputError, match="text 0 is a bytes"):
        character_vocabulary(["a"]).encode(b"a")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="token id is 9"):
        character_vocabulary(["a"]).token(9)


def test_json_that_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        Vocabulary.from_json("{}")
    without_eos = character_vocabulary(["ab"]).to_json().replace(EOS, "<end>")
    with pytest.raises(ModelFileError, match="no token '<eos>'"):
        Vocabulary.from_json(without_eos)


def test_another_tokenizer_of_the_library_works_too() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({EOS: 0, "cat": 1, "sat": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    vocabulary = Vocabulary(tokenizer)
    assert not vocabulary.is_character_level
    assert vocabulary.encode("cat sat").tolist() == [1, 2]
    with pytest.raises(UnknownTokenError, match="3 tokens"):
        vocabulary.encode("cat dog")


def test_half_a_million_characters_take_seconds_at_most() -> None:
    text = "the quick brown fox jumps over the lazy dog\n" * 11_364
    vocabulary = character_vocabulary([text])
    start = time.perf_counter()
    ids = vocabulary.encode(text)
    spent = time.perf_counter() - start
    assert vocabulary.decode(ids) == text
    assert spent < 10.0, "0.4 s on an idle core"
