"""torch's exporter without what it prints: progress, warnings about itself, and whole graphs when it fails."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_LOGGERS = ("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")


@contextmanager
def silent() -> Iterator[None]:
    """Nothing that this thread prints on stdout or stderr inside the block is seen; other threads print on."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), _muted("stderr"), _muted("stdout"):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _muted(name: str) -> Iterator[None]:
    before = getattr(sys, name)
    muted = _Muted(before, threading.get_ident())
    setattr(sys, name, muted)
    try:
        yield
    finally:
        if getattr(sys, name) is muted:
            setattr(sys, name, before)
        muted.open()


class _Muted:
    """A text stream that drops what one thread writes."""

    def __init__(self, stream: TextIO | None, thread: int) -> None:
        self._stream = stream
        self._thread: int | None = thread

    def open(self) -> None:
        """Let the thread write again; whoever kept this stream goes on with it."""
        self._thread = None

    def write(self, text: str) -> int:
        """As a text stream does."""
        if self._stream is None or threading.get_ident() == self._thread:
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
