"""Example inputs as text: ``float32[1,20,40]``, ``ids=int64[1,10]<5000``, ``x=features.npy``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncore.runtime.errors import InputError

_NAMED = re.compile(r"(?:(\w+)=)?(.+)", re.DOTALL)
_SHAPE = re.compile(r"(float16|float32|float64|int64|int32|bool)\[((?:\d+(?:,\d+)*)?)\](?:<(\d+))?")
_EXPECTED = "expected DTYPE[SIZES] such as float32[1,20,40], int64[1,10]<5000 for ids below 5000, or a .npy file"


def read_example(texts: Sequence[str], seed: int) -> Any:
    """What ``export`` takes as example: a tensor, a tuple of them, or a dict by name.

    Args:
        texts: one for each input.  Floats are drawn from a normal distribution, integers from 0 to below the limit, the
            largest included.
        seed: of what is drawn.

    Raises:
        InputError: a text cannot be read, or only some have names.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [_NAMED.fullmatch(text) for text in texts]
    names = [part[1] for part in parts if part is not None]
    values = [_read(part[2] if part is not None else "", generator) for part in parts]
    if all(name is None for name in names):
        return values[0] if len(values) == 1 else tuple(values)
    if any(name is None for name in names) or len(set(names)) < len(names):
        raise InputError(f"examples are named {names}: name each of them, or none")
    return dict(zip(names, values, strict=True))


def _read(text: str, generator: torch.Generator) -> Tensor:
    if text.endswith(".npy"):
        if not Path(text).is_file():
            raise InputError(f"{text} does not exist")
        try:
            return torch.from_numpy(np.load(text, allow_pickle=False))
        except (ValueError, TypeError, OSError) as error:
            raise InputError(f"{text} cannot be read as an array: {error}") from None
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise InputError(f"example {text!r} cannot be read: {_EXPECTED}")
    kind, sizes, limit = found[1], [int(size) for size in found[2].split(",") if size], found[3]
    dtype: torch.dtype = getattr(torch, kind)
    if kind.startswith("float"):
        if limit is not None:
            raise InputError(f"example {text!r}: only integers have a limit")
        return torch.randn(sizes, generator=generator).to(dtype)
    if kind == "bool":
        return torch.randint(2, sizes, generator=generator).bool()
    most = int(limit) if limit is not None else 2
    if most < 1:
        raise InputError(f"example {text!r}: the limit is {most}, expected at least 1")
    drawn = torch.randint(most, sizes, generator=generator)
    if drawn.numel():
        drawn.view(-1)[0] = most - 1  # the range of ids is read off the example
    return drawn.to(dtype)
