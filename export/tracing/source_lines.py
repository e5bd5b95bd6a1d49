"""The line of the user's code behind an exception, a frame or a node of a trace."""

from __future__ import annotations

import functools
import re
import sys
import sysconfig
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import Node

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')
_INSTALLED = ("/site-packages/", "/dist-packages/")
_MACHINERY = ("torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "numpy", "sympy")
"""Packages that stand between a user's module and its trace; every other package may be where the module comes from."""
_STANDARD = str(Path(sysconfig.get_path("stdlib")).resolve())


@functools.cache
def is_users(file: str) -> bool:
    """Whether a file is neither of Python, nor of torch and its like, nor of rnncore."""
    if not file or file.startswith("<"):
        return False
    for folder in _INSTALLED:
        _, installed, rest = file.rpartition(folder)
        if installed:
            return rest.partition("/")[0].removesuffix(".py") not in (*_MACHINERY, "rnncore")
    if not Path(file).is_absolute():  # torch cuts the names of its own files
        return file.partition("/")[0] not in _MACHINERY
    return not str(Path(file).resolve()).startswith((_STANDARD, *_packages()))


READS_VALUE = "an if, int(), float() or item()"
"""What people write where torch says that a number is taken out of a tensor."""


def line_of_exception(error: BaseException) -> str:
    """The innermost line of the user's code that ``error`` passed, such as ``model.py:12, in forward``; empty if none."""
    found = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_users(code.co_filename) and not _is_calling(trace.tb_frame):
            found = _text(code.co_filename, trace.tb_lineno, code.co_name)
        trace = trace.tb_next
    return found


def line_of_now() -> str:
    """The innermost line of the user's module that runs now; empty if none does."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    while frame is not None and not _is_ours(frame):  # beyond it stands who called the exporter
        if is_users(frame.f_code.co_filename):
            return _text(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return ""


def line_of_node(node: Node) -> str:
    """The innermost line of the user's code that made ``node``; else the innermost at all, of a layer of torch."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if is_users(frame[0])]
    file, line, function = (own or frames or [("", "0", "")])[-1]
    return _text(file, int(line), function) if file and own else ""


def line_in_text(text: str) -> str:
    """The last line of the user's code in the tracebacks that ``text`` quotes; empty if none."""
    own = [frame for frame in _FRAME.findall(text) if is_users(frame[0])]
    return _text(own[-1][0], int(own[-1][1]), own[-1][2]) if own else ""


def line_of_frame(frame: Any) -> tuple[str, bool]:
    """(line, whether it is the user's) of a frame that torch remembers."""
    file = str(getattr(frame, "filename", "") or "")
    own = is_users(file)
    return (_text(file, int(frame.lineno or 0), str(frame.name)) if own else ""), own


def _text(file: str, line: int, function: str) -> str:
    return f"{Path(file).name}:{line}, in {function}"


def _is_calling(frame: FrameType) -> bool:
    """Whether a frame is of the code that called the exporter, not of the module."""
    return frame.f_code.co_name == "<module>"


def _is_ours(frame: FrameType) -> bool:
    return str(Path(frame.f_code.co_filename)).startswith(_packages())


def _packages() -> tuple[str, ...]:
    """Folders of rnncore, which an editable install leaves where they are."""
    names = ("rnncore", "rnncore.export", "rnncore.runtime")
    modules = [sys.modules[name] for name in names if name in sys.modules]
    return tuple(str(Path(path).resolve()) for module in modules for path in getattr(module, "__path__", ()))
