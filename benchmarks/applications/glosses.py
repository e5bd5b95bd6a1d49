"""Titles word by word in German, with signs for names: what is left to a network is order, endings and compounds.

A dictionary that was learnt from the pairs it is then read with would know too much: the German word of an English one that
stands in a single pair is one of that pair.  So the pairs to train with are read with dictionaries of the *other* packages.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

FOLDS = 5
LEAST_CHANCE, LEAST_COUNT = 0.1, 0.9
"""Of a German word that the dictionary tells."""

SIGNS = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"
WORD = r"\w+(?:[.'+-]\w+)*\+*"

Pair = tuple[str, str]
"""An English text and the German one."""


class Gloss(NamedTuple):
    """A title word by word: what the dictionary lacks or leaves as it is stands as a sign, of which ``names`` tells."""

    text: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, title: str, dictionary: dict[str, str]) -> Gloss:
        names: list[str] = []

        def told(word: re.Match[str]) -> str:
            own = dictionary.get(word[0].lower(), word[0])
            if own != word[0]:
                return own
            if own not in names and len(names) < len(SIGNS):
                names.append(own)
            return SIGNS[names.index(own)] if own in names else own

        return cls(re.sub(WORD, told, title), tuple(names))

    def hidden(self, german: str) -> str:
        """``german`` with the signs of those names that stand in it."""
        for sign, name in zip(SIGNS, self.names, strict=False):
            german = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", sign, german)
        return german

    def shown(self, german: str) -> str:
        """``german`` with the names for their signs; a sign of no name is left out."""
        return re.sub(f"[{SIGNS}]", lambda sign: "".join(self.names[SIGNS.index(sign[0]) :][:1]), german)


def glossed(pairs: Sequence[Pair], packages: Sequence[str]) -> list[Pair]:
    """(gloss, German with signs) of each pair, by the dictionary of the packages in other folds than its own.

    Args:
        pairs: English and German.
        packages: the source package of each.
    """
    folds = [zlib.crc32(name.encode()) % FOLDS for name in packages]
    found: list[Pair] = [("", "")] * len(pairs)
    for fold in range(FOLDS):
        dictionary = learnt_dictionary([pair for pair, own in zip(pairs, folds, strict=True) if own != fold])
        for i, (english, german) in enumerate(pairs):
            if folds[i] == fold:
                gloss = Gloss.of(english, dictionary)
                found[i] = gloss.text, gloss.hidden(german)
    return found


def with_errors(german: str, randomness: random.Random, missing: float = 0.12, exchanged: float = 0.15) -> str:
    """With words missing, and words in the place of their neighbours: what learns to put it right learns to copy."""
    all_words = german.split(" ")
    kept = [word for word in all_words if randomness.random() > missing] or all_words
    i = 0
    while i < len(kept) - 1:
        if randomness.random() < exchanged:
            kept[i], kept[i + 1] = kept[i + 1], kept[i]
            i += 1
        i += 1
    return " ".join(kept)


def learnt_dictionary(pairs: Sequence[Pair], rounds: int = 5) -> dict[str, str]:
    """The likeliest German word of each English one, small letters, by IBM model 1 (Brown et al. 1993).

    German words may come from nothing as well, which the empty word stands for; what is not seen once, or is less likely
    than a tenth, is left out.
    """
    texts = [(["", *words(english.lower())], words(german)) for english, german in pairs]
    chances: dict[str, dict[str, float]] = {}
    for turn in range(rounds):
        counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for english, german in texts:
            for target in german:
                shares = [1.0 if not turn else chances[source].get(target, 0.0) for source in english]
                whole = sum(shares) or 1.0
                for source, share in zip(english, shares, strict=True):
                    counts[source][target] += share / whole
        chances = {source: _shares(found) for source, found in counts.items()}
    best = {source: max(found, key=found.__getitem__) for source, found in chances.items() if source and found}
    return {a: b for a, b in best.items() if chances[a][b] >= LEAST_CHANCE and counts[a][b] >= LEAST_COUNT}


def _shares(counts: dict[str, float]) -> dict[str, float]:
    """Each count by the sum of all; what hardly occurs is left out."""
    whole = sum(counts.values())
    return {name: count / whole for name, count in counts.items() if count > 1e-4}


def words(text: str) -> list[str]:
    return re.findall(rf"{WORD}|[^\w\s]", text)


def word_by_word(title: str, dictionary: dict[str, str]) -> str:
    """Each word that the dictionary has is replaced, others stay as they are."""
    return re.sub(WORD, lambda word: dictionary.get(word[0].lower(), word[0]), title)
