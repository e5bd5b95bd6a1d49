"""Capitals that are read as small letters: by the vocabulary, and so by every file that holds it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers

from rnncore import CellConfig, Classifier, ReaderConfig, runtime
from rnncore.export import export_model
from rnncore.runtime.errors import UnknownTokenError
from rnncore.text import EOS, Vocabulary, character_vocabulary, subword_vocabulary, word_vocabulary

TEXTS = ("The Cat sat. ΣΑΣ, Ärger", "the İ dog: SAT")
KINDS = {
    "characters": character_vocabulary(TEXTS, lowercase=True),
    "words": word_vocabulary(TEXTS, lowercase=True),
    "subwords": subword_vocabulary(TEXTS, 270, lowercase=True),
}


def lower(text: str) -> str:
    """Letter by letter: a sigma that ends a word is none of its own."""
    return "".join(letter.lower() for letter in text)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.sampled_from("theTHE Cat sSΣσÄäİi.:"), max_size=30).map("".join))
def test_a_text_is_read_as_its_small_letters(kind: str, text: str) -> None:
    for vocabulary in (KINDS[kind], Vocabulary.from_json(KINDS[kind].to_json())):
        ids = vocabulary.encode(text)
        assert np.array_equal(ids, vocabulary.encode(lower(text))) and len(vocabulary.pieces(text)) == len(ids)
    if kind != "words":
        assert KINDS[kind].decode(ids) == lower(text)


def test_there_are_no_capitals_among_the_tokens() -> None:
    assert "c" in KINDS["characters"] and "C" not in KINDS["characters"]
    assert {"the", "cat", "sat"} <= {KINDS["words"].token(i) for i in range(len(KINDS["words"]))}
    assert "Cat" in word_vocabulary(TEXTS) and "C" in character_vocabulary(TEXTS), "unless it is asked for"


def test_a_long_text_is_read_as_short_ones() -> None:
    text = "The Cat sat. " * 4000
    assert np.array_equal(KINDS["characters"].encode(text), np.tile(KINDS["characters"].encode("the cat sat. "), 4000))


def test_what_is_unknown_is_named_as_it_was_written() -> None:
    with pytest.raises(UnknownTokenError, match=r"^unknown characters? 'Q' \(U\+0051\) at position 4"):
        KINDS["characters"].encode("The Qat")


def test_other_normalizers_of_characters() -> None:
    """Where letters are put together, none of them is unknown alone, and no text may be cut anywhere."""
    composed = Tokenizer(models.WordLevel({EOS: 0, "é": 1, "a": 2, "e": 3}, unk_token=EOS))
    composed.normalizer = normalizers.NFC()
    composed.pre_tokenizer = Tokenizer.from_str(character_vocabulary("a").to_json()).pre_tokenizer
    composed.add_special_tokens([EOS])
    vocabulary = Vocabulary(composed)
    assert vocabulary.is_character_level and vocabulary.encode("e\u0301ae").tolist() == [1, 2, 3]
    assert vocabulary.encode("a" + "e\u0301" * 10_000).tolist() == [2] + [1] * 10_000
    with pytest.raises(UnknownTokenError, match="unknown character"):
        vocabulary.encode("a\u0301")


def test_a_file_answers_capitals_as_small_letters(tmp_path: Path) -> None:
    vocabulary = word_vocabulary(["a good film", "a bad film"], lowercase=True)
    torch.manual_seed(3)
    config = ReaderConfig((CellConfig.named("gru", 8),), len(vocabulary), embedding_size=8)
    export_model(Classifier(config, ["bad", "good"]), tmp_path / "m.onnx", vocabulary=vocabulary)
    classifier = runtime.Classifier.load(tmp_path / "m.onnx")
    wanted, other = (classifier.probabilities(text) for text in ("a good film", "a bad film"))
    assert classifier.probabilities("A GOOD Film") == wanted != other
    metadata = json.loads(classifier.model.metadata["rnncore.tokenizer"])
    assert metadata["normalizer"] == {"type": "Lowercase"}, "as the library writes it, for every host that has it"
