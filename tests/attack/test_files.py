"""A slice of the attack on model files, in this process."""

from __future__ import annotations

from tests.attack import files


def test_altered_files_are_refused_or_run() -> None:
    counts = files.run(1)
    assert counts["refused"] + counts["loaded"] == counts["files"] == files.FILES
    assert counts["refused"] > 50 and counts["loaded"] > 20 and counts["verified"] > 5
