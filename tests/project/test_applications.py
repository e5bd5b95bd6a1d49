"""The table of applications: what was measured meets its floors, and the check sees when it does not."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest

from benchmarks.applications import record, table
from benchmarks.applications.__main__ import NAMES
from benchmarks.applications.common import split, without_duplicates

ROW = record.Measured(
    "made up", "here", (3, 2, 1), "accuracy", 0.9, 0.8, {"always yes": 0.5}, (100, 50), 1.0, 2.0, "word", reach=0.95
)


def test_the_committed_table_meets_its_floors() -> None:
    floors = {name: importlib.import_module(f"benchmarks.applications.{name}").FLOORS for name in NAMES}
    assert floors
    assert table.check(NAMES, floors) == []


def test_the_check_sees_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "PAGE", tmp_path / "page.md")  # type: ignore[operator]
    record.save("one", [ROW], "a machine")
    record.save("two", [replace(ROW, name="errors", lower=True, fp32=0.2)], "a machine")
    assert "is not what the kept measurements say" in table.check(["one"], {"one": {"made up": 0.9}})[0]
    table.write(["one", "two", "three"])
    assert table.check(["one", "two", "three"], {"one": {"made up": 0.9}, "two": {"errors": 0.2}}) == []
    page = table.PAGE.read_text("utf-8")
    assert "Written, and not measured yet: `three`." in page
    assert "not measured yet" not in table.page(["one", "two"])
    assert "| made up | 3 / 2 / 1 | accuracy | **0.900** | 0.800 | always yes 0.500 | yes | 0.950, missed |" in page
    assert (
        table.check(["one"], {"one": {"made up": 0.91}})[0] == "one: 'made up' has accuracy 0.900, its floor is 0.910"
    )
    assert "its floor is 0.190" in table.check(["two"], {"two": {"errors": 0.19}})[0]
    assert len(table.check(["one", "two", "three"], {"one": {}, "two": {"other": 1.0, "errors": 0.3}})) == 2


def test_nothing_equal_stands_in_two_parts() -> None:
    parts = split(without_duplicates([i % 40 for i in range(100)], key=lambda one: one), valid=0.25, test=0.1, seed=3)
    assert parts.sizes == (26, 10, 4)
    assert sorted([*parts.train, *parts.valid, *parts.test]) == list(range(40))
