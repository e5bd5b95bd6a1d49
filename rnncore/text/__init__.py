"""Text: where it comes from, how it is cut, and which characters it has."""

from rnncore.runtime.vocabulary import EOS, Vocabulary
from rnncore.text.characters import character_vocabulary
from rnncore.text.corpus import TEXTS_BY, Corpus, Split, read_corpus
from rnncore.text.english import python_corpus

__all__ = [
    "EOS",
    "TEXTS_BY",
    "Corpus",
    "Split",
    "Vocabulary",
    "character_vocabulary",
    "python_corpus",
    "read_corpus",
]
