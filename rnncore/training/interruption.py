"""Ctrl-C as a wish that is granted at the next step boundary."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """Training stopped on Ctrl-C or SIGTERM after saving ``checkpoint``; resuming from it loses nothing."""

    def __init__(self, signal_number: int, checkpoint: Path) -> None:
        super().__init__(f"training interrupted; everything so far is in {checkpoint}")
        self.signal_number = signal_number
        self.checkpoint = checkpoint


class Interruption:
    """``signal_number`` of the signal that came, or None."""

    signal_number: int | None = None


def signal_flags(signal_number: int | None) -> list[float]:
    """One number for each signal, 1 for the one that came: what several processes can add up."""
    return [float(number == signal_number) for number in _SIGNALS]


def signal_of(flags: Sequence[float]) -> int | None:
    """The signal that came, from the sums of :func:`signal_flags` over all processes; None if none did."""
    return next((int(number) for number, count in zip(_SIGNALS, flags, strict=True) if count), None)


@contextmanager
def deferred_interruption() -> Iterator[Interruption]:
    """Note SIGINT and SIGTERM inside the block instead of dying of them; a second one acts at once, as usual.

    Python takes signals in the main thread only; elsewhere this does nothing.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        interruption.signal_number = number
        restore()

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()
