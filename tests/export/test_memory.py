"""What a loaded file leaves in memory."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import rnncore
from rnncore.export import export
from tests.export.exporting import one_trace


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not the C library of GNU"
)
def test_loading_keeps_nothing_that_only_loading_needed(tmp_path: Path) -> None:
    """Folding constants cuts and joins large weights, and what that took stays with the process unless it is given back."""
    with one_trace():
        export(rnncore.LSTM(512, 512).eval(), tmp_path / "m.onnx", torch.randn(2, 3, 512))
    code = textwrap.dedent("""
        import ctypes, resource
        from rnncore import runtime

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

        model = runtime.load("m.onnx")
        loaded = resident()
        ctypes.CDLL(None).malloc_trim(0)
        print((loaded - resident()) / 1e6)
    """)
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) < 2, "MB"
