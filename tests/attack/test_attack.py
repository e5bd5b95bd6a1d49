"""A small slice of every harness, as the command runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.attack.__main__ import HERE, NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_slice_of_each_harness_holds(name: str) -> None:
    command = [sys.executable, "-m", "tests.attack", name, "--amount", "1"]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{name}: ")
