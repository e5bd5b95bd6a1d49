"""Sentences of package descriptions, English and German: what titles alone are too few for."""

from __future__ import annotations

import re
from collections.abc import Container

LONGEST = 100
"""Characters of an English sentence that is learnt from."""

Row = tuple[str, str, str]
"""An English sentence, the German one, and the source package."""


def sentences(without: Container[str]) -> list[Row]:
    """Of paragraphs that have as many sentences in both languages, but for the source packages ``without``."""
    from datasets import ARCHIVE, debian_lists, stanzas

    packages, english, german = map(stanzas, ARCHIVE, [debian_lists(*ARCHIVE)] * 3)
    sources = {one["Package"]: one.get("Source", one["Package"]).split()[0] for one in packages if "Package" in one}
    translated = {one["Description-md5"]: one["more"] for one in german if "Description-md5" in one}
    found: dict[str, Row] = {}
    for one in english:
        name = one.get("Package", "")
        source = sources.get(name, name)
        if source not in without:
            for a, b in aligned(one["more"], translated.get(one.get("Description-md5", ""), "")):
                found.setdefault(a.lower(), (a, b, source))
    return list(found.values())


def aligned(english: str, german: str) -> list[tuple[str, str]]:
    """Pairs of sentences of two descriptions, paragraph by paragraph; none of what does not fit together."""
    ours, theirs = (re.split(r"\s{2,}", text.strip()) for text in (english, german))
    if len(ours) != len(theirs):
        return []
    parts = [(split_up(a), split_up(b)) for a, b in zip(ours, theirs, strict=True)]
    pairs = [pair for a, b in parts if len(a) == len(b) for pair in zip(a, b, strict=True)]
    return [(a, b) for a, b in pairs if a != b and len(a) <= LONGEST and 0.5 < (len(b) + 5) / (len(a) + 5) < 2.2]


def split_up(paragraph: str) -> list[str]:
    """Its sentences."""
    return [part for part in re.split(r'(?<=[.!?:;])\s+(?=[A-ZÄÖÜ»"])', paragraph.strip()) if part]
