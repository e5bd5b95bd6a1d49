"""Losses that put vectors of length 1 near to those of their like: each one summed, with the number of its terms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LOSSES = ("contrastive", "triplet", "ranking", "pairs")
"""Two that need labels, two that need pairs; see :class:`rnncore.models.Embedder`."""


def contrastive_loss(vectors: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, int]:
    r"""Of vectors [batch, size] and labels int64 [batch], over the vectors i that share theirs with others, P(i):

    .. math:: -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log
        \frac{\exp(e_i \cdot e_p / \tau)}{\sum_{a \ne i} \exp(e_i \cdot e_a / \tau)}

    Khosla et al. 2020, "Supervised contrastive learning" (arXiv:2004.11362, equation 2).
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    scores = (vectors @ vectors.t() / temperature).masked_fill(itself, -torch.inf)
    log_probs = functional.log_softmax(scores, 1).masked_fill(itself, 0.0)
    alike = (labels[:, None] == labels) & ~itself
    mates = alike.sum(1)
    terms = -(log_probs * alike).sum(1) / mates.clamp(min=1)
    return terms.sum(), int((mates > 0).sum())


def triplet_loss(vectors: Tensor, labels: Tensor, margin: float) -> tuple[Tensor, int]:
    r"""Over the vectors that have both in the batch: the hardest of their label and the hardest of another one,

    .. math:: \max(0, \; \max_{n: l_n \ne l_i} e_i \cdot e_n - \min_{p: l_p = l_i, p \ne i} e_i \cdot e_p + m)

    Hermans, Beyer and Leibe 2017, "In defense of the triplet loss" (arXiv:1703.07737, "batch hard"), with cosines.
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    scores = vectors @ vectors.t()
    same = labels[:, None] == labels
    alike = same & ~itself
    hardest_mate = scores.masked_fill(~alike, torch.inf).amin(1)
    hardest_other = scores.masked_fill(same, -torch.inf).amax(1)
    counted = alike.any(1) & (~same).any(1)
    # Chosen before the subtraction: infinity times zero would make the gradient of the others NaN.
    terms = (hardest_other[counted] - hardest_mate[counted] + margin).clamp(min=0.0)
    return terms.sum(), int(counted.sum())


def ranking_loss(vectors: Tensor, numbers: Tensor, temperature: float) -> tuple[Tensor, int]:
    r"""Over pairs (a_i, b_i): b_i must be found for a_i among the others of all pairs, and all hard negatives,

    .. math:: -\log \frac{\exp(a_i \cdot b_i / \tau)}{\sum_{c} \exp(a_i \cdot c / \tau)}

    Henderson et al. 2017, "Efficient natural language response suggestion" (arXiv:1705.00652, "multiple negatives").

    Args:
        vectors: [rows, size]: the first of each pair, then the second of each, then hard negatives, any number.
        numbers: int64 [rows]: of the pair, from 0 in both parts; -1 for a hard negative.
        temperature: tau.
    """
    pairs = int(numbers.max()) + 1
    scores = vectors[:pairs] @ vectors[pairs:].t() / temperature
    targets = torch.arange(pairs, device=vectors.device)
    return functional.cross_entropy(scores, targets, reduction="sum"), pairs


def pair_loss(vectors: Tensor, alike: Tensor, margin: float) -> tuple[Tensor, int]:
    r"""Over pairs (a_i, b_i): :math:`1 - a_i \cdot b_i` if they are alike, else :math:`\max(0, a_i \cdot b_i - 1 + m)`.

    Hadsell, Chopra and LeCun 2006, "Dimensionality reduction by learning an invariant mapping", with cosines.

    Args:
        vectors: [2 pairs, size]: the first of each pair, then the second of each.
        alike: bool [pairs].
        margin: how far apart, 1 - cosine, the others shall be.
    """
    left, right = vectors.chunk(2)
    cosines = (left * right).sum(1)
    terms = torch.where(alike, 1.0 - cosines, (cosines - 1.0 + margin).clamp(min=0.0))
    return terms.sum(), len(alike)
