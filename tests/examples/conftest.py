"""Two ways to run an example: as the command in its first line, and in this process, which spares loading torch again."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Run = Callable[..., str]


def command(example: str, *arguments: object) -> str:
    """What an example prints, run by its command in a process of its own."""
    line = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Run]:
    """Runs ``main`` of an example with arguments, and returns what it prints; warnings are errors here."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    before, path = set(sys.modules), list(sys.path)

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capsys.readouterr()
        importlib.import_module(name).main()
        return capsys.readouterr().out

    yield run
    # Packages of others that a test has written, and what an example puts in their place.
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if getattr(sys.modules[name], "__spec__", None) is None or Path(file or "/").is_relative_to(tmp_path):
            del sys.modules[name]
    sys.path[:] = path
