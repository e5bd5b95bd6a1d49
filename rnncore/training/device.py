"""Where to compute."""

from __future__ import annotations

import torch

from rnncore.runtime.errors import InputError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str = "auto") -> torch.device:
    """The device called "auto" (a GPU if there is one), "cpu" or "cuda"; InputError when there is no such device."""
    if name not in DEVICES:
        raise InputError(f"device is {name!r}, expected one of: {', '.join(DEVICES)}")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InputError("device is 'cuda', but PyTorch finds no CUDA GPU here: use 'auto' or 'cpu'")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")
