"""What ``rnncore train`` chooses where the user has not: by kind of token and size of the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rnncore.training import Trainer

PATIENCE = 3
"""Epochs without gain on held-out text after which training stops."""

_CHARACTERS_TO_READ, _WORDS_TO_READ = 2_500_000, 800_000  # in all epochs together: minutes on two cores
_LARGE_CORPUS = 1_000_000  # tokens from which on overfitting is no longer what limits a model of words
_NGRAMS_UP_TO = (
    3_000_000  # tokens; of more text the recurrent layers learn what n-grams know, and counting takes memory
)
_FEW_TOKENS = 20_000
_MANY_UNKNOWN = 0.1


@dataclass(frozen=True)
class Defaults:
    """Sizes and settings.

    ``tied`` where embedding and top layer are of one size and the head is one matrix; ``ngrams``: tokens of the longest n-gram
    that is mixed in.
    """

    layers: int
    hidden: int
    embedding: int
    dropout: float
    tied: bool
    epochs: int
    bptt: int
    learning_rate: float
    ngrams: int


def defaults_for(level: str, tokens: int) -> Defaults:
    """The defaults for a corpus of ``tokens`` training tokens that are ``level``: characters, words or subwords.

    A small corpus is read more often, and where tokens are words most weights are the embedding's: it is shared with the
    head, and strong dropout keeps it from learning the texts by heart (Zaremba et al. 2014, Press and Wolf 2017).
    """
    if level == "characters":
        return Defaults(
            2,
            256,
            64,
            0.1,
            False,
            _epochs(_CHARACTERS_TO_READ, tokens, 12),
            64,
            8e-3,
            10 if tokens <= _NGRAMS_UP_TO else 0,
        )
    dropout = 0.5 if tokens < _LARGE_CORPUS else 0.3
    return Defaults(
        1, 256, 256, dropout, True, _epochs(_WORDS_TO_READ, tokens, 16), 32, 6e-3, 5 if tokens <= _NGRAMS_UP_TO else 0
    )


def _epochs(to_read: int, tokens: int, most: int) -> int:
    return max(2, min(most, round(to_read / max(1, tokens))))


def warnings_of(trainer: Trainer) -> Iterator[str]:
    """Why the model will be poor, whatever its settings; nothing if there is no such reason."""
    if trainer.training_tokens < _FEW_TOKENS:
        yield (
            f"{trainer.training_tokens} training tokens are few: the model will write little that makes sense; "
            f"{10 * _FEW_TOKENS} are a beginning"
        )
    share = unknown_share(trainer)
    if share > _MANY_UNKNOWN:
        yield (
            f"{share:.0%} of the held-out words are unknown and all read as one: raise --vocabulary-size, take more text, "
            "or choose --tokens subwords, which know every text"
        )


def unknown_share(trainer: Trainer) -> float:
    """Which part of the held-out tokens the vocabulary lacks."""
    unknown = trainer.vocabulary.unk_id
    ids = [trainer.vocabulary.encode(text) for text in trainer.held_out_texts]
    tokens = sum(map(len, ids))
    return 0.0 if unknown is None or not tokens else sum(int(np.sum(one == unknown)) for one in ids) / tokens
