"""The table of tolerances: complete, with room above what was seen, and blind to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tolerances import FIXED, TABLE, bound, differences

ROOT = Path(__file__).parents[1]
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


def own_tolerances(folder: Path) -> list[str]:
    """What scripts/own_tolerances.py says about a folder."""
    check = [sys.executable, ROOT / "scripts" / "own_tolerances.py", folder]
    answer = subprocess.run(check, capture_output=True, text=True)
    return answer.stdout.splitlines() if answer.returncode else []


def test_no_test_has_a_tolerance_of_its_own(tmp_path: Path) -> None:
    assert own_tolerances(ROOT) == [], "take a row of tests/tolerances.py"
    planted = [
        "np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)",
        "assert a == pytest.approx(b, 1e-3)",
        "assert np.allclose(a, b, 0, 10 * 1e-7)",
        "assert report.max_error < 1e-4",
        "assert abs(a - b) <= 0.02",
        "LOOSE = {'rtol': 1e-3}",
        "assert np.allclose(a, b, atol=bound('float32', 'onnx', magnitude=0.5))",
        "assert size < 0.5",
    ]
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("\n".join(planted), encoding="utf-8")
    assert [line.split(":")[1] for line in own_tolerances(tmp_path)] == ["1", "2", "3", "4", "5", "6"]


def test_fixed_bounds_have_reasons() -> None:
    assert all(0 < row.bound < 0.1 and len(row.why) > 10 for row in FIXED.values())
