"""The first and last letters of words as numbers: what tells a name, a number or an ending of a word that is not known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, ModelFileError, raise_all

NOTHING, UNKNOWN = 0, 1
"""Numbers of "the word has no letter there" and of a letter that is not in the alphabet; the alphabet's follow."""


@dataclass(frozen=True)
class Affixes:
    """Which letters of a word are read.

    alphabet: the letters that are known, each once; capitals are letters of their own.  prefix, suffix: so many from the
    beginning, so many from the end.

    Raises:
        InputError: lists what is out of range.
    """

    alphabet: str
    prefix: int = 5
    suffix: int = 5

    def __post_init__(self) -> None:
        problems = [*count_problems("prefix", self.prefix), *count_problems("suffix", self.suffix)]
        if not self.alphabet or len(set(self.alphabet)) < len(self.alphabet):
            problems.append(f"alphabet is {self.alphabet[:20]!r}, expected letters, each once")
        raise_all(problems)

    @classmethod
    def of(cls, words: Iterable[str], *, least_count: int = 2, prefix: int = 5, suffix: int = 5) -> Affixes:
        """With the letters of ``words`` that occur ``least_count`` times; InputError if there is none."""
        counts = Counter(letter for word in words for letter in word)
        return cls("".join(sorted(c for c, n in counts.items() if n >= least_count)), prefix, suffix)

    @property
    def width(self) -> int:
        """Numbers of a word."""
        return self.prefix + self.suffix

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return 2 + len(self.alphabet)

    def ids(self, words: Sequence[str]) -> Array:
        """int64 [words, width]: the first letters in order, then the last ones, both beginning at the word's edge."""
        numbers = {letter: i for i, letter in enumerate(self.alphabet, UNKNOWN + 1)}
        found = np.full((len(words), self.width), NOTHING, np.int64)
        for row, word in enumerate(words):
            head, tail = word[: self.prefix], word[: -self.suffix - 1 : -1]
            found[row, : len(head)] = [numbers.get(letter, UNKNOWN) for letter in head]
            found[row, self.prefix : self.prefix + len(tail)] = [numbers.get(letter, UNKNOWN) for letter in tail]
        return found

    def to_json(self) -> str:
        """As text; :meth:`from_json` reads it."""
        return json.dumps({"alphabet": self.alphabet, "prefix": self.prefix, "suffix": self.suffix}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Affixes:
        """Read the text of :meth:`to_json`; ModelFileError for any other."""
        try:
            data = json.loads(text)
            return cls(str(data["alphabet"]), data["prefix"], data["suffix"])
        except (KeyError, TypeError, ValueError, InputError, ArithmeticError):
            raise ModelFileError(
                "the letters that the file reads cannot be understood: export the model again"
            ) from None
