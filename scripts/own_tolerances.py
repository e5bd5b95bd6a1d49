#!/usr/bin/env python3
"""No test has a tolerance of its own: lists each number that stands where a row of tests/tolerances.py should, and fails.

    python scripts/own_tolerances.py [FOLDER]      looks into tests/ of the folder, here by default

Tolerances are what ``allclose``, ``approx`` and their like are handed, dicts of such arguments, and small numbers that an
error is compared with.  Take ``bound(...)`` where sizes are known, ``fixed("...")`` where they are all alike.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

KEYWORDS = {"atol", "rtol", "abs", "rel", "abs_tol", "rel_tol"}
FIRST_TOLERANCE = {"approx": 1, "isclose": 2, "allclose": 2, "assert_allclose": 2}
"""How many arguments come before those that are tolerances."""


def literals(node: ast.AST) -> Iterator[ast.Constant]:
    """Fractions in an expression, not those that are handed to a function in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value % 1:
        yield node
    for child in () if isinstance(node, ast.Call) else ast.iter_child_nodes(node):
        yield from literals(child)


def tolerances(node: ast.AST) -> list[ast.AST]:
    """Expressions that say how far two numbers may be apart."""
    if isinstance(node, ast.Call):
        first = FIRST_TOLERANCE.get(ast.unparse(node.func).rpartition(".")[2], len(node.args))
        return [*node.args[first:], *(word.value for word in node.keywords if word.arg in KEYWORDS)]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return [value for key, value in pairs if isinstance(key, ast.Constant) and key.value in KEYWORDS]
    if isinstance(node, ast.Compare) and any(isinstance(op, ast.Lt | ast.LtE) for op in node.ops):
        sides = [node.left, *node.comparators]
        about_errors = any(re.search(r"error|max_abs|\babs\(", ast.unparse(side)) for side in sides)
        return [side for side in sides if about_errors and isinstance(side, ast.Constant) and side.value < 0.1]  # type: ignore[operator]
    return []


def places(source: str) -> list[int]:
    """Lines of ``source`` on which a tolerance is a number."""
    nodes = ast.walk(ast.parse(source))
    return sorted({number.lineno for node in nodes for value in tolerances(node) for number in literals(value)})


def main(root: Path) -> int:
    """Print every place; the exit status."""
    files = sorted((root / "tests").rglob("*.py"))
    bad = [
        f"{file.relative_to(root)}:{line}: a tolerance of its own, expected a row of tests/tolerances.py"
        for file in files
        for line in places(file.read_text(encoding="utf-8"))
    ]
    print("\n".join(bad) if bad else f"{len(files)} files, every tolerance is a row of the table")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent))
