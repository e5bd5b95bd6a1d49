"""``rnncore.convert`` is the function, whatever was imported before."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import rnncore


@pytest.mark.parametrize("name", rnncore.__all__)
def test_no_module_hides_a_public_name(name: str) -> None:
    """Importing a module sets it as an attribute of its package: one called like a function would replace it."""
    assert importlib.util.find_spec(f"rnncore.{name}") is None


def test_convert_is_a_function_after_its_module_was_imported() -> None:
    code = "import rnncore.conversion, rnncore; assert rnncore.convert is rnncore.conversion.convert"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
