"""What the caller's process has set that an export is not to depend on: autocast, and as many threads as there are processors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

_LARGE = 1 << 22
"""Weights from which on a second thread is worth its cost in calls of a few steps."""


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Inside it torch computes in the dtype of the weights, on one thread if ``module`` is small; afterwards as before.

    An export asks a module some hundred small questions.  torch's layers share each out to all threads, which wait for each
    other at every step: where the processors are busy with something else, or a container has fewer of them than it sees, a
    call of a millisecond takes two hundred.
    """
    with ExitStack() as stack:
        for device in ("cpu", "cuda", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if sum(weight.numel() for weight in module.parameters() if not is_lazy(weight)) < _LARGE:
            stack.enter_context(_on_one_thread())
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
