"""What is read of the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnncore.runtime.session.cpu_features import has_avx512

TABLE = "processor\t: 0\nmodel name\t: some\nflags\t\t: fpu {}\nbugs\t\t: avx512f\n\nprocessor\t: 1\nflags\t\t: fpu avx512f\n"


@pytest.mark.parametrize(
    ("flags", "found"), [("avx2 avx512f avx512bw", True), ("avx avx2", False), ("avx512fp16", False)]
)
def test_flags_of_the_first_processor_tell(flags: str, found: bool, tmp_path: Path) -> None:
    table = tmp_path / "cpuinfo"
    table.write_text(TABLE.format(flags), encoding="utf-8")
    assert has_avx512(table) is found


def test_no_table_no_answer(tmp_path: Path) -> None:
    assert has_avx512(tmp_path / "absent") is False
