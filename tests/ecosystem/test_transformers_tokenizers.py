"""Vocabularies of ours mean the same in transformers as here."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from rnncore.text import Vocabulary, character_vocabulary, subword_vocabulary, token_vocabulary, word_vocabulary

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: scripts/ecosystem installs it"
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
TEXTS = ["The cat sat on the mat.", "A  well-known cat,\n isn't it?", "mat 42 <eos> cat", ""]
VOCABULARIES = {
    "characters": character_vocabulary(TEXTS),
    "characters, lowercase": character_vocabulary(TEXTS, lowercase=True),
    "words": word_vocabulary(TEXTS),
    "words, lowercase": word_vocabulary(TEXTS[:1], lowercase=True),
    "tokens": token_vocabulary([text.split() for text in TEXTS]),
    "subwords": subword_vocabulary(TEXTS * 3, 300),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_transformers_reads_the_same_ids(name: str) -> None:
    ours: Vocabulary = VOCABULARIES[name]
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(ours.to_json()))
    for text in TEXTS[:2] + TEXTS[3:]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text).tolist(), text
