"""How far two sequences are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def edit_distance(source: Sequence[Any], target: Sequence[Any]) -> int:
    """Fewest insertions, deletions and replacements that turn ``source`` into ``target`` (Levenshtein)."""
    row = list(range(len(target) + 1))
    for i, left in enumerate(source, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(target, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]
