"""English that every Python carries: the help topics of the language reference."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from rnncore.text.corpus import Corpus

_TYPOGRAPHY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "...", "\t": "    "})
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_BULLET = re.compile(r"^(?:[*+-]|\d+\.|\[\d+\]) +")
_PROSE = re.compile(r"[A-Z\"'*(\[][ -~]{38,}[.:;!?)\"]")  # printable ASCII, begins and ends like a sentence


def python_corpus() -> Corpus:
    """The prose of ``pydoc_data.topics``: about 240,000 characters, one paragraph a text, each on one line.

    Headings, tables, grammars and code are left out, and so are repetitions (topics quote each other).  Its size
    varies a little between Python versions.
    """
    from pydoc_data.topics import topics

    prose = (paragraph for topic in topics.values() for paragraph in _prose(topic))
    return Corpus("Python's language reference (pydoc_data.topics)", tuple(dict.fromkeys(prose)))


def _prose(topic: str) -> Iterator[str]:
    for block in _BLANK_LINE.split(topic.translate(_TYPOGRAPHY)):
        first, _, rest = textwrap.dedent(block.strip("\n")).partition("\n")
        # A list item's further lines are indented under its first one.
        rest = textwrap.dedent(rest) if _BULLET.match(first) else rest
        lines = [_BULLET.sub("", first), *rest.split("\n")]
        if any(line.startswith((" ", ">>>")) for line in lines):
            continue
        paragraph = " ".join(" ".join(lines).split())
        if _PROSE.fullmatch(paragraph):
            yield paragraph
