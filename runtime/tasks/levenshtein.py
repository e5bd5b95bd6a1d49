"""How far two sequences are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def edit_distance(source: Sequence[Any], target: Sequence[Any]) -> int:
    """Fewest insertions, deletions and replacements that turn ``source`` into ``target`` (Levenshtein).

    Of symbols that hash, a whole column of the table is two integers with a bit for each row: where it is larger by one
    than the row before, and where it is smaller (G. Myers, A fast bit-vector algorithm for approximate string matching based
    on dynamic programming, 1999, with H. Hyyrö's rule for the last row).
    """
    source, target = list(source), list(target)
    try:
        places = _places(source)
        columns = [places.get(symbol, 0) for symbol in target]
    except TypeError:  # lists as symbols, say
        return _by_rows(source, target)
    return _by_bits(columns, len(source))


def _places(symbols: Sequence[Any]) -> dict[Any, int]:
    """For each symbol the rows where it stands, as bits."""
    places: dict[Any, int] = {}
    for row, symbol in enumerate(symbols):
        places[symbol] = places.get(symbol, 0) | 1 << row
    return places


def _by_bits(columns: Sequence[int], rows: int) -> int:
    """columns: for each symbol of the target the ``rows`` where the source has it, as bits."""
    if not rows:
        return len(columns)
    every, last = (1 << rows) - 1, 1 << rows - 1
    larger, smaller, distance = every, 0, rows  # down the first column
    for equal in columns:
        diagonal = (((equal & larger) + larger) ^ larger) | equal | smaller
        right_larger = smaller | ~(diagonal | larger) & every
        right_smaller = larger & diagonal
        distance += bool(right_larger & last) - bool(right_smaller & last)
        right_larger = right_larger << 1 | 1
        larger = (right_smaller << 1 | ~(diagonal | right_larger)) & every
        smaller = right_larger & diagonal & every
    return distance


def _by_rows(source: Sequence[Any], target: Sequence[Any]) -> int:
    """The plain table, a row at a time."""
    row = list(range(len(target) + 1))
    for i, left in enumerate(source, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(target, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]
