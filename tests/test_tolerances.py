"""The table of tolerances: complete, with room above what was seen, and blind to nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tolerances import TABLE, bound, differences

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
