"""What the caller's process has set that an export is not to depend on: autocast, threads, how often garbage is collected.

And what it does beside: torch keeps what it traces in globals, so exports of several threads wait for each other.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from rnncore.runtime.session.process_fork import watch

_LARGE = 1 << 22
"""Weights from which on a second thread is worth its cost in calls of a few steps."""
_SELDOM = 10_000
"""New objects between two rounds of the garbage collector; Python begins with 700 (2,000 from 3.13 on)."""


class _Turn:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        watch(self)

    def after_process_fork(self) -> None:
        """The thread that holds the lock stayed in the parent process."""
        self.lock = threading.RLock()


_turn = _Turn()


@contextmanager
def in_turn() -> Iterator[None]:
    """Wait until no other thread is inside; a thread that is may come in again."""
    with _turn.lock:
        yield


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Inside it torch computes in the dtype of the weights, on one thread if ``module`` is small, and with a garbage collector
    that seldom comes; afterwards as before.

    An export asks a module some hundred small questions.  torch's layers share each out to all threads, which wait for each
    other at every step: where the processors are busy with something else, or a container has fewer of them than it sees, a
    call of a millisecond takes two hundred.  Python looks through all objects of the process again and again while what torch
    exports with is imported, which takes a quarter of a first export; of a large module it shall give back what it can.
    """
    with ExitStack() as stack:
        for device in ("cpu", "cuda", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if sum(weight.numel() for weight in module.parameters() if not is_lazy(weight)) < _LARGE:
            stack.enter_context(_on_one_thread())
            stack.enter_context(_seldom_collecting())
        yield


@contextmanager
def _on_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    if before == 1:  # or another export is at work
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    before = gc.get_threshold()
    if not 0 < before[0] < _SELDOM:  # the caller wants it off or seldom, or another export is at work
        yield
        return
    gc.set_threshold(_SELDOM, *before[1:])
    try:
        yield
    finally:
        if gc.get_threshold()[0] == _SELDOM:
            gc.set_threshold(*before)
