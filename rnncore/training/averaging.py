"""The exponential moving average of a model's weights while it trains."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rnncore.runtime.errors import InputError


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``model`` whose weights are to follow those of ``model``: call its ``update_parameters`` after every step.

    A step moves them by ``1 - min(decay, (1 + n) / (10 + n))`` of the way after ``n`` steps, so that what the weights were
    at the beginning is forgotten early.  Buffers are those of ``model``.  InputError if the model cannot be copied.
    """

    def average(old: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
        n = int(steps)
        return old.lerp(new, 1.0 - min(decay, (1 + n) / (10 + n)))

    try:
        return AveragedModel(model, avg_fn=average)
    except (RuntimeError, TypeError) as error:  # weights that are computed, locks, open files, ...
        raise InputError(
            f"average needs a copy of the model, which {type(model).__name__} does not allow: {error}"
        ) from error
