"""Which token ends a text and which stands for what is unknown, in tokenizers of ours and of others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

EOS = "<eos>"
"""The special token that ends every text of our vocabularies; a model reads it before the first token too."""

UNK = "<unk>"
"""The token of every word that a word-level model does not know; other models have none."""

ENDS = (EOS, "</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "[EOS]", "[SEP]")
"""Names of the token that ends a text, the first that a tokenizer has counts: ours, SentencePiece's, GPT's, BERT's."""


def end_token(known: Collection[str]) -> str | None:
    """The token among ``known`` that ends a text."""
    return next((token for token in ENDS if token in known), None)


def unknown_token(model: Mapping[str, Any], known: Mapping[str, int]) -> int | None:
    """The id of the token for what a tokenizer does not know; None if there is none.

    model: the ``model`` of the tokenizer's JSON.  A library that asks for such a token where nothing is unknown is given the
    one that ends a text: that is none.
    """
    if UNK in known:
        return known[UNK]
    if model.get("type") == "Unigram":
        found = model.get("unk_id")
        return None if found is None else int(found)
    token = model.get("unk_token")
    return None if token is None or token == end_token(known) else known.get(token)
