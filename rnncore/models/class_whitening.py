"""A linear map after which the members of a class differ equally in every direction."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from rnncore.runtime.errors import raise_all


def whitening(features: Tensor, labels: Sequence[Hashable], size: int, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Weight [size, width] and bias [size] of the map; see :meth:`rnncore.models.Embedder.whiten`.

    Args:
        features: [examples, width].
        labels: the class of each.
        size: directions to keep.
        shrinkage: 0 to 1.
    """
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    width = features.shape[1]
    problems = []
    if not 0 < shrinkage <= 1:
        problems.append(f"shrinkage is {shrinkage}, expected above 0 and at most 1")
    if len(numbers) == len(labels):
        problems.append(f"{len(labels)} examples have {len(numbers)} labels, expected some label with several examples")
    elif size > width:
        problems.append(f"size is {size}, expected at most {width}, the pooled features")
    raise_all(problems)
    rows = features.double().cpu()
    group = torch.tensor([numbers[label] for label in labels])
    sums = torch.zeros(len(numbers), width, dtype=torch.float64).index_add_(0, group, rows)
    means = sums / group.bincount()[:, None]
    within = rows - means[group]
    covariance = within.t() @ within / len(rows)
    even = covariance.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    covariance = (1 - shrinkage) * covariance + shrinkage * even * torch.eye(width, dtype=torch.float64)
    variances, directions = torch.linalg.eigh(covariance)
    white = directions / variances.sqrt()
    centre = rows.mean(0)
    spread = (rows - centre) @ white
    _, kept = torch.linalg.eigh(spread.t() @ spread)
    weight = (white @ kept[:, -size:]).t()
    return weight, -weight @ centre
