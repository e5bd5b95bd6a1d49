"""From features to the probability of each token: one matrix, or several of falling width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def log_probs_of(head: nn.Linear | nn.AdaptiveLogSoftmaxWithLoss, y: Tensor) -> Tensor:
    """Log-probabilities of all tokens [..., vocabulary], up to a constant of each row, for features ``y`` [..., width].

    The adaptive head's are normalised, computed by concatenation: its own ``log_prob`` writes into slices, which makes a
    larger graph.
    """
    if isinstance(head, nn.Linear):
        return head(y)
    first = functional.log_softmax(head.head(y), -1)
    known = head.shortlist_size
    parts = [first[..., :known]]
    for i, tail in enumerate(head.tail):
        parts.append(first[..., known + i : known + i + 1] + functional.log_softmax(tail(y), -1))
    return torch.cat(parts, -1)


def summed_loss(head: nn.Linear | nn.AdaptiveLogSoftmaxWithLoss, y: Tensor, targets: Tensor, ignored: int) -> Tensor:
    """Negative log-probability of ``targets`` [...] given features [..., width], summed where they are not ``ignored``.

    Of the adaptive head, only those tails are computed that hold a target.
    """
    if isinstance(head, nn.Linear):
        logits = head(y).flatten(0, -2)
        return functional.cross_entropy(logits, targets.flatten(), reduction="sum", ignore_index=ignored)
    valid = targets != ignored
    if not bool(valid.any()):
        return y.sum() * 0.0
    log_probs, _ = head(y[valid], targets[valid])
    return -log_probs.sum()


def default_cutoffs(vocabulary_size: int) -> tuple[int, ...]:
    """Where an adaptive head is cut unless told otherwise: after a tenth and after a third of the tokens."""
    return tuple(sorted({max(1, vocabulary_size // 10), max(1, vocabulary_size // 3)}))
