"""A novel by Jane Austen, word by word: a language model by the defaults of ``rnncore train`` beside Kneser-Ney."""

from __future__ import annotations

from benchmarks.applications.language import row
from benchmarks.applications.record import Measured
from rnncore.text import Corpus

FLOORS = {"Austen, words": 82.5}
DATA = "Pride and Prejudice from Debian's r-cran-janeaustenr (MIT, text in the public domain), every twentieth paragraph to test"


def measure() -> list[Measured]:
    from datasets import novels

    return [row("Austen", "words", Corpus("Austen", tuple(dict.fromkeys(novels()["PRIDE AND PREJUDICE"]))), DATA)]
