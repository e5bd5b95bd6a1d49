"""What differs between the versions of torch that are supported: all of it is here."""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch.export import ExportedProgram

VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])
"""Major and minor number of the torch that is installed."""

_ASKS_FOR_INDEX_WIDTH = (2, 10)
_LARGEST_INT32 = 2**31 - 1

_GUARDS_FIT_CALLS = (2, 12)  # 2.9 is known to fail, 2.12 not to; between them nothing is lost by leaving the checks out


def drop_guards(program: ExportedProgram) -> None:
    """Forget what torch would check when ``program`` is called, which happens while it is decomposed, where that goes wrong.

    torch 2.9 names sizes in these checks after the parameters of ``forward``, but calls a program by the names of its own
    inputs: where ``forward`` takes ``*args``, two inputs that share an axis end in a NameError.  Nothing of it gets into a file.
    """
    if VERSION < _GUARDS_FIT_CALLS:
        program._guards_code = []


def chooses_kernel(condition: Any) -> bool:
    """Whether torch asked this of sizes to choose among kernels that give the same numbers, so that it limits no size.

    torch 2.10 asks of a convolution whether its result has more places than a 32-bit integer counts.
    """
    return (
        VERSION == _ASKS_FOR_INDEX_WIDTH
        and isinstance(condition, sympy.core.relational.Relational)
        and _LARGEST_INT32 in condition.args
    )
