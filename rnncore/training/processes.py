"""Devices, mixed precision and several processes, through ``accelerate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnncore.runtime.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from accelerate import Accelerator


def new_accelerator(mixed_precision: str) -> Accelerator:
    """The processes that ``accelerate launch`` or torchrun started, or this one alone.

    Raises:
        InputError: the device has no such precision.
        MissingExtraError: ``accelerate`` is not installed.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError:
        raise MissingExtraError("accelerate", "train", "fit") from None
    # Which precision counts is an argument of every run; accelerate remembers the first one of the process for good.
    AcceleratorState._reset_state()
    try:
        return Accelerator(
            # Said aloud, or accelerate lets every process of torchrun train for itself where there is no GPU.
            cpu=not torch.accelerator.is_available(),
            mixed_precision=mixed_precision,
            # Adaptive softmax, and models with branches, leave parameters unused in some steps.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    except ValueError as error:
        raise InputError(f"mixed_precision is {mixed_precision!r}, which does not work here: {error}") from None


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The tensors of a batch on ``device``, everything else as it is."""
    return {name: part.to(device) if isinstance(part, Tensor) else part for name, part in batch.items()}


def summed(accelerator: Accelerator, values: list[float]) -> list[float]:
    """Element-wise sums over all processes, the same in each."""
    if accelerator.num_processes == 1:
        return values
    dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
    total = accelerator.reduce(torch.tensor(values, dtype=dtype, device=accelerator.device), "sum")
    return [float(value) for value in total.tolist()]


def gathered(accelerator: Accelerator, value: Any) -> list[Any]:
    """``value`` of every process, in order, the same list in each."""
    if accelerator.num_processes == 1:
        return [value]
    from accelerate.utils import gather_object

    return list(gather_object([value]))
