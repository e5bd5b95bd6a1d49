"""Four tragedies of Shakespeare, letter by letter: a language model by the defaults of ``rnncore train`` beside Kneser-Ney."""

from __future__ import annotations

from benchmarks.applications.language import row
from benchmarks.applications.record import Measured
from rnncore.text import Corpus

FLOORS = {"Shakespeare, characters": 1.96}
TITLES = ("hamlet", "lear", "macbeth", "othello")
DATA = (
    "Hamlet, Lear, Macbeth and Othello from shakespeare 0.6 (texts in the public domain), every twentieth paragraph to test, "
    "equal paragraphs merged"
)


def measure() -> list[Measured]:
    from datasets import plays

    return [row("Shakespeare", "characters", Corpus("Shakespeare", tuple(dict.fromkeys(plays(TITLES)))), DATA)]
