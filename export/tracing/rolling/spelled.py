"""Functions of torch that are recorded as what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnncore.export.tracing.rolling.circular_pad import circular
from rnncore.export.tracing.rolling.group_norm import group_norm
from rnncore.export.tracing.rolling.one_hot import one_hot
from rnncore.export.tracing.rolling.pad_sequence import pad_sequence
from rnncore.export.tracing.rolling.spectra import spectrum

_pad_sequence = torch._C._nn.pad_sequence


def spelled(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """What a call gives, by other functions; None for a call that is recorded as it is."""
    if func is F.group_norm:
        return group_norm(*args, **kwargs)
    if func is _pad_sequence:
        return pad_sequence(*args, **kwargs)
    if func is F.one_hot:
        return one_hot(*args, **kwargs)
    return circular(func, args, kwargs) if func is F.pad else spectrum(func, args, kwargs)
