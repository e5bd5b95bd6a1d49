"""A corpus: a tuple of texts, and how it is cut into training and held-out texts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rnncore.runtime.errors import InputError

_FEWEST_TEXTS = 20  # below it, holding out whole texts would be too coarse
_PIECE = 4096  # characters of one held-out text, when it has to be cut out of a long one


def _paragraphs(text: str) -> list[str]:
    return re.split(r"\n(?:[ \t]*\n)+", text.strip("\n"))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n")]


def _whole(text: str) -> list[str]:
    return [text]


TEXTS_BY: dict[str, Callable[[str], list[str]]] = {"paragraph": _paragraphs, "line": _lines, "file": _whole}
"""How a file is cut into texts: at blank lines, at every line end, or not at all."""


@dataclass(frozen=True)
class Split:
    """Texts to train on, and texts the model never sees."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """Texts of one source; the model learns where each of them ends.

    name: where they come from, for people to read.
    texts: none of them empty.
    """

    name: str
    texts: tuple[str, ...]

    @property
    def characters(self) -> int:
        """Number of characters in all texts."""
        return sum(map(len, self.texts))

    def digest(self) -> str:
        """SHA-256 of the texts: equal for equal corpora, whatever their names."""
        digest = hashlib.sha256()
        for text in self.texts:
            data = text.encode("utf-8")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()

    def split(self, held_out: float = 0.05) -> Split:
        """Hold out about this fraction: texts at equal distances, or the end of a corpus of few texts.

        A text that occurs several times may land on both sides.  Raises InputError unless both sides get something.
        """
        if not 0.0 < held_out <= 0.5:
            raise InputError(f"held_out is {held_out}, expected a fraction above 0 and at most 0.5")
        if len(self.texts) < max(_FEWEST_TEXTS, 2.0 / held_out):
            return self._split_end(held_out)
        distance = max(2, round(1.0 / held_out))
        chosen = range(distance - 1, len(self.texts), distance)
        training = tuple(text for place, text in enumerate(self.texts) if place not in chosen)
        return Split(training, tuple(self.texts[place] for place in chosen))

    def _split_end(self, held_out: float) -> Split:
        wanted = max(1, round(self.characters * held_out))
        training = list(self.texts)
        held: list[str] = []
        while wanted > 0 and training:
            text = training.pop()
            if len(text) > wanted:
                training.append(text[:-wanted])
                text = text[-wanted:]
            wanted -= len(text)
            held.insert(0, text)
        if not training:
            raise InputError(
                f"{self.name}: {self.characters} characters are too few to hold out {held_out:.0%} of them"
            )
        pieces = (text[start : start + _PIECE] for text in held for start in range(0, len(text), _PIECE))
        return Split(tuple(training), tuple(pieces))


def read_corpus(path: str | Path, texts_by: str = "paragraph") -> Corpus:
    """Read a UTF-8 file; line ends become ``\\n``, empty texts are dropped.

    Args:
        path: the file.
        texts_by: "paragraph" (blank lines between texts), "line" or "file".

    Raises:
        InputError: not UTF-8 (names the byte), nothing but blanks, or an unknown ``texts_by``.
        OSError: the file cannot be read.
    """
    if texts_by not in TEXTS_BY:
        raise InputError(f"texts_by is {texts_by!r}, expected one of: {', '.join(TEXTS_BY)}")
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not valid UTF-8: convert the file to UTF-8 first") from None
    return corpus_of(str(path), text, texts_by)


def corpus_of(name: str, text: str, texts_by: str = "paragraph") -> Corpus:
    """The texts of a string; ``name`` says where it comes from, the rest is as for :func:`read_corpus`."""
    if texts_by not in TEXTS_BY:
        raise InputError(f"texts_by is {texts_by!r}, expected one of: {', '.join(TEXTS_BY)}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    texts = tuple(part for part in TEXTS_BY[texts_by](text) if part.strip())
    if not texts:
        raise InputError(f"{name}: no text in it")
    return Corpus(name, texts)
