"""Lengths that a module makes of its input before it packs with them: those of strided frames, say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.observing import Observed, packed_by


def lengths_behind(
    seen: Observed, module: nn.Module, named: Mapping[str, Tensor], call: Callable[[Sequence[Tensor]], Any]
) -> str | None:
    """Name of the only input that what the module packed with, as was ``seen``, is computed from; None if that is not clear.

    Such an input counts along an axis of another, and with half of each count all rows are packed shorter.
    """
    packed = seen.packed
    if not packed:
        return None
    sizes = {size for value in named.values() if value.dim() > 1 for size in value.shape[1:]} | {
        value.shape[0] for value in named.values() if value.dim() > 1
    }
    may = [
        name
        for name, value in named.items()
        if value.dim() == 1
        and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
        and value.numel()
        and int(value.max()) in sizes
        and int(value.min()) > 1
    ]
    return may[0] if len(may) == 1 and _shortens(may[0], packed, module, named, call) else None


def _shortens(
    name: str,
    packed: Sequence[Tensor],
    module: nn.Module,
    named: Mapping[str, Tensor],
    call: Callable[[Sequence[Tensor]], Any],
) -> bool:
    found = packed_by(
        module, lambda: call([(value + 1) // 2 if own == name else value for own, value in named.items()])
    )
    return len(found) == len(packed) and all(
        a.shape == b.shape and bool((a < b).all()) for a, b in zip(found, packed, strict=True)
    )
