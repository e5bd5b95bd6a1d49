"""The table of tolerances: complete, with room above what was seen, and blind to nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.tolerances import FIXED, TABLE, bound, differences

SETTLED = [key for key, row in TABLE.items() if not row.why.startswith("provisional")]


@pytest.mark.parametrize("key", SETTLED, ids=" ".join)
def test_bound_has_a_reason_and_room(key: tuple[str, str]) -> None:
    row = TABLE[key]
    assert len(row.why) > 10 and 0 < row.worst_seen < row.units <= 100 * row.worst_seen + 4


def test_bound_grows_with_everything_it_depends_on() -> None:
    base = bound("float32", "oracle")
    for larger in ({"depth": 2}, {"length": 2}, {"largest_input": 100.0}, {"magnitude": 2.0}):
        assert bound("float32", "oracle", **larger) > base > 1e6 * bound("float64", "oracle")


def test_every_difference_is_listed() -> None:
    want = {"a": np.ones(3), "b": np.zeros((2, 2)), "c": np.zeros(1), "d": np.zeros(1), "e": np.ones(1)}
    got = {"a": np.ones(3) + 1e-3, "b": np.zeros(4), "c": np.array([np.nan]), "e": np.ones(1), "f": np.zeros(1)}
    lines = sorted(line.split(":")[0] for line in differences(got, want, "float64", "oracle"))
    assert lines == ["a", "b", "c", "d", "f"]
    assert differences(want, want, "float64", "oracle") == []
    assert differences({"a": np.array([np.inf])}, {"a": np.array([np.inf])}, "float64", "oracle")


TESTS = Path(__file__).parent
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


def test_no_test_has_a_tolerance_of_its_own() -> None:
    files = sorted(set(TESTS.rglob("test_*.py")) | set(TESTS.rglob("[!_]*.py")))
    found = [f"{file.relative_to(TESTS)}:{line}" for file in files for line in places(file.read_text(encoding="utf-8"))]
    assert found == [], "take a row of tests/tolerances.py"


def test_a_tolerance_of_its_own_is_seen() -> None:
    planted = [
        "np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)",
        "assert a == pytest.approx(b, 1e-3)",
        "assert np.allclose(a, b, 0, 10 * 1e-7)",
        "assert report.max_error < 1e-4",
        "assert abs(a - b) <= 0.02",
        "LOOSE = {'rtol': 1e-3}",
    ]
    assert places("\n".join(planted)) == [1, 2, 3, 4, 5, 6]
    assert places("assert np.allclose(a, b, atol=bound('float32', 'onnx', magnitude=0.5))\nassert size < 0.5") == []


def test_fixed_bounds_have_reasons() -> None:
    assert all(0 < row.bound < 0.1 and len(row.why) > 10 for row in FIXED.values())
