"""Label smoothing: a target that leaves something to the other classes."""

from __future__ import annotations

from torch import Tensor

from rnncore.runtime.errors import InputError


def check_label_smoothing(smoothing: float) -> None:
    """Raise InputError unless ``smoothing`` is 0 to below 1."""
    if isinstance(smoothing, bool) or not isinstance(smoothing, int | float) or not 0.0 <= smoothing < 1.0:
        raise InputError(f"label_smoothing is {smoothing!r}, expected a number of at least 0 and below 1")


def smoothed_nll(log_probs: Tensor, targets: Tensor, smoothing: float, training: bool) -> Tensor:
    """What each target costs in nats, [...], for ``log_probs`` [..., classes] and ``targets`` int64 [...].

    While ``training``, a part ``smoothing`` of the target is shared out to all classes alike, as in
    ``torch.nn.functional.cross_entropy`` (Szegedy et al. 2016, "Rethinking the Inception architecture for computer
    vision").  Held-out data are always measured by what they are.
    """
    own = -log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if not training or not smoothing:
        return own
    return (1.0 - smoothing) * own - smoothing * log_probs.mean(-1)
