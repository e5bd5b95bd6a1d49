"""``import rnncore`` is enough to reach its folders, and brings no torch with it."""

from __future__ import annotations

import subprocess
import sys


def test_folders_load_when_first_used() -> None:
    code = """
import sys, rnncore
assert callable(rnncore.runtime.load) and "torch" not in sys.modules and "onnx" not in sys.modules
assert callable(rnncore.export.export) and "torch" in sys.modules
assert not hasattr(rnncore, "exports")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
