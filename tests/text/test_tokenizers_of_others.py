"""Tokenizers that others made: their own token ends a text, their own token is what they do not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import rnncore
from rnncore import runtime
from rnncore.export import export_model
from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.text.vocabulary import unknown_token_id
from rnncore.text import Vocabulary, character_vocabulary, subword_vocabulary, word_vocabulary
from tests.tolerances import fixed

TEXTS = ["the cat sat on the mat", "a dog sat on the log", "the dog saw a cat"]


def sentencepiece_like() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(vocab_size=30, special_tokens=["<s>", "</s>", "<unknown>"], unk_token="<unknown>"),
    )
    return tokenizer


def bert_like() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=60, special_tokens=special))
    return tokenizer


def gpt_like() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def of_words() -> Tokenizer:
    """Its special tokens are ordinary ones, as in a vocabulary that somebody wrote by hand."""
    words = ["</s>", "oov", *sorted({word for text in TEXTS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="oov"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


OTHERS = {
    "unigram": (sentencepiece_like, "</s>", "<unknown>"),
    "wordpiece": (bert_like, "[SEP]", "[UNK]"),
    "byte pairs": (gpt_like, "<|endoftext|>", None),
    "words": (of_words, "</s>", "oov"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_ends_and_unknowns_are_theirs(name: str) -> None:
    make, end, unknown = OTHERS[name]
    for vocabulary in (Vocabulary(make()), Vocabulary.from_json(make().to_str())):
        assert vocabulary.token(vocabulary.eos_id) == end
        assert vocabulary.unk_id == (None if unknown is None else vocabulary.token_id(unknown))
        assert unknown_token_id(vocabulary.to_json()) == vocabulary.unk_id
        for text in TEXTS:
            ids = vocabulary.encode(text)
            assert vocabulary.eos_id not in ids and vocabulary.decode([*ids, vocabulary.eos_id]) == text
        assert vocabulary.eos_id not in vocabulary.encode(f"the {end} cat"), "a special token is never read from text"
        if unknown is not None:
            assert vocabulary.unk_id in vocabulary.encode("the Ω")


@pytest.mark.parametrize("name", OTHERS)
def test_what_a_file_was_set_up_with_for_training_changes_no_text(name: str) -> None:
    """Files of sentence encoders cut at so many tokens and fill up to a length; byte pairs may be trained with dropout."""
    make, end, _ = OTHERS[name]
    made = make().to_str()  # once: training is not repeatable
    plain, trained = Vocabulary.from_json(made), Tokenizer.from_str(made)
    trained.enable_truncation(3)
    trained.enable_padding(length=8, pad_id=plain.eos_id, pad_token=end)
    if name == "byte pairs":
        trained.model.dropout = 0.9
    for vocabulary in (Vocabulary.from_json(trained.to_str()), Vocabulary(trained)):
        again = Vocabulary.from_json(vocabulary.to_json())
        for text in (*TEXTS, "", "cat " * 50):
            for one in (vocabulary, again):
                assert one.encode(text).tolist() == plain.encode(text).tolist()
                assert one.pieces(text) == plain.pieces(text)


def test_ours_are_as_they_were() -> None:
    for vocabulary, unknown in (
        (character_vocabulary(TEXTS), None),
        (word_vocabulary(TEXTS), 1),
        (subword_vocabulary(TEXTS, 270), None),
    ):
        assert (vocabulary.eos_id, vocabulary.unk_id) == (0, unknown)
        assert Vocabulary.from_json(vocabulary.to_json()).to_json() == vocabulary.to_json()


def test_a_tokenizer_without_an_end_is_refused_by_the_names_that_are_known() -> None:
    with pytest.raises(ModelFileError, match=r"no token '<eos>', .* nor any of </s>, <\|endoftext\|>"):
        Vocabulary(Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")))


def test_a_language_model_over_a_tokenizer_of_others(tmp_path: Path) -> None:
    vocabulary = Vocabulary(sentencepiece_like())
    torch.manual_seed(1)
    config = rnncore.LanguageModelConfig(len(vocabulary), 8, (rnncore.CellConfig.named("gru", 8),))
    model = rnncore.LanguageModel(config).eval()
    export_model(model, tmp_path / "m.onnx", vocabulary=vocabulary)
    language = runtime.LanguageModel.load(tmp_path / "m.onnx")
    ids = torch.tensor([[vocabulary.eos_id, *vocabulary.encode(TEXTS[0]), vocabulary.eos_id]])
    with torch.no_grad():
        log_probs = model(ids[:, :-1]).gather(2, ids[:, 1:, None])
    score = language.score(TEXTS[0], eos=True)
    np.testing.assert_allclose(score / log_probs.numel(), log_probs.mean().item(), atol=fixed("float32 same steps"))
    assert "<unknown>" not in language.sample(max_tokens=60, seed=3, temperature=3.0)
