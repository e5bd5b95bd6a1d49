"""What the processor can do decides how one row is multiplied; a file serves all processors, so it is told when it is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

GEMV = "rnncore.gemv"
"""Initializer of exported files, int64 [1]: 1 lets loops over one row read their weights as they are, 0 always packs them."""

_CPUINFO = Path("/proc/cpuinfo")
_supposed: ContextVar[bool | None] = ContextVar("_supposed", default=None)


@cache
def has_avx512(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether this processor has AVX-512; False where the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return "avx512f" in flags.split()


@contextmanager
def supposing(avx512: bool) -> Iterator[None]:
    """Open files within as a processor with or without AVX-512 does: a test of a file has to see both."""
    token = _supposed.set(avx512)
    try:
        yield
    finally:
        _supposed.reset(token)


def suit_processor(options: onnxruntime.SessionOptions) -> None:
    """Choose between the two ways to multiply one row that a file holds.

    onnxruntime's kernel for a single row has no AVX-512 form, its kernel for packed weights has: 1.25 times as fast at
    size 1024 on such a processor, while on one with AVX2 it is 1.25 times as slow (onnxruntime 1.32, LSTM, whole sequences).
    """
    supposed = _supposed.get()
    if has_avx512() if supposed is None else supposed:
        # Must live for as long as the options; a file without such an initializer takes no notice.
        options.add_initializer(GEMV, _never())


@cache
def _never() -> onnxruntime.OrtValue:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.int64))
