"""The site builds without a warning, and every public name is in its reference."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import rnncore
import rnncore.export
import rnncore.models
import rnncore.runtime
import rnncore.text
import rnncore.training

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_site_builds_and_knows_every_public_name(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = "".join(path.read_text() for path in (tmp_path / "reference").glob("*.html"))
    described = {found.rpartition(".")[2] for found in re.findall(r'<dt class="sig [^"]*" id="([\w.]+)"', pages)}
    for module in (rnncore, rnncore.export, rnncore.models, rnncore.runtime, rnncore.text, rnncore.training):
        missing = {name for name in module.__all__ if not name.startswith("_")} - described - PLAIN_VALUES
        assert not missing, f"{module.__name__}: not in docs/reference: {sorted(missing)}"


PLAIN_VALUES = {"EOS", "UNK", "TEXTS_BY", "CELLS", "POOLINGS", "Form", "FORMAT_VERSION"}
