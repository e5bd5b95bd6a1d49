"""What ``compile_steps`` needs from the machine."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

_FOUND = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))
_HEADERS = (Path(sysconfig.get_path("include")) / "Python.h").exists()

needs_compiler = pytest.mark.skipif(not (_FOUND and _HEADERS), reason="no C++ compiler or no headers of Python here")
