"""Who calls: the module, by its path, and the line of the user's code behind an operation of torch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import nn

import rnncore

_OURS = tuple(f"{folder}/" for folder in {str(Path(torch.__file__).parent), str(Path(rnncore.__file__).parent)})
_OURS += (f"{Path(__file__).parents[1]}/", "<frozen ")
_LOOP = (str(Path(__file__).parent / "own_steps" / "own_step.py"), "steps")
"""The loop that the export itself puts around a step: where its body begins is known by its lines, as in the user's loops."""


@dataclass(frozen=True)
class Line:
    """A line of the user's code, and how far its function had come, as an offset in its byte code."""

    file: str
    number: int
    function: str
    offset: int

    def __str__(self) -> str:
        return f'File "{self.file}", line {self.number}, in {self.function}'


class Callers:
    """Reads the Python stack for the parts of ``module``."""

    def __init__(self, module: nn.Module) -> None:
        self._paths = {part: path for path, part in reversed(list(module.named_modules()))}

    def path(self, start: int = 1) -> str:
        """Path of the innermost part of the module whose method is running, "" for the module itself."""
        frame: FrameType | None = sys._getframe(start)
        while frame is not None:
            caller = frame.f_locals.get("self")
            if isinstance(caller, nn.Module) and caller in self._paths:
                return self._paths[caller]
            frame = frame.f_back
        return ""


def user_lines(start: int = 1) -> tuple[Line, ...]:
    """The lines of code outside torch and rnncore that are running, outermost first."""
    frame: FrameType | None = sys._getframe(start)
    lines = []
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_OURS) or (code.co_filename, code.co_name) == _LOOP:
            lines.append(Line(code.co_filename, frame.f_lineno, code.co_name, frame.f_lasti))
        elif code.co_name == "call" and code.co_filename.endswith("example.py"):
            break  # below is whoever called export
        frame = frame.f_back
    return tuple(reversed(lines))
