"""The drawn pages name files and functions that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["life-of-an-export.md", "life-of-a-push.md"]
PLACE = re.compile(r"`((?:rnncore|export|runtime)/[\w/]+\.py)`(?:\s+·\s+`([\w.]+)`)?")


def names_of(file: Path) -> set[str]:
    """Functions and classes of a file, methods as ``Class.method``."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def wrong_places(text: str) -> list[str]:
    """Places on a page that lead nowhere."""
    wrong = []
    for path, name in PLACE.findall(text):
        if not (ROOT / path).is_file():
            wrong.append(path)
        elif name and name not in names_of(ROOT / path):
            wrong.append(f"{path} has no {name}")
    return wrong


@pytest.mark.parametrize("page", PAGES)
def test_every_place_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert len(PLACE.findall(text)) >= 20
    assert wrong_places(text) == []


def test_a_place_that_is_gone_is_seen() -> None:
    gone = "`export/no/such.py` · `f`, `export/exporter.py` · `exportt`, `runtime/model.py` · `Model.walk`"
    assert len(wrong_places(gone)) == 3
