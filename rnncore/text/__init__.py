"""Text: where it comes from, how it is cut, and which characters it has."""

from rnncore.runtime.text.special_tokens import EOS, UNK
from rnncore.runtime.text.vocabulary import Vocabulary
from rnncore.text.characters import character_vocabulary
from rnncore.text.corpus import TEXTS_BY, Corpus, Split, corpus_of, read_corpus
from rnncore.text.english import python_corpus
from rnncore.text.kneser_ney import NgramLevel, count_ngrams
from rnncore.text.subwords import subword_vocabulary
from rnncore.text.tokens import token_vocabulary
from rnncore.text.words import word_vocabulary

__all__ = [
    "EOS",
    "TEXTS_BY",
    "UNK",
    "Corpus",
    "NgramLevel",
    "Split",
    "Vocabulary",
    "character_vocabulary",
    "corpus_of",
    "count_ngrams",
    "python_corpus",
    "read_corpus",
    "subword_vocabulary",
    "token_vocabulary",
    "word_vocabulary",
]
