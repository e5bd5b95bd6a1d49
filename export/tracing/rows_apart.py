"""Whether the entries along an axis are rows: each answered as if it were alone, in whatever order they come."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rnncore.export.tracing.groups import Group
from rnncore.export.tracing.probing import Prober


def rows_apart(prober: Prober, group: Group, *, seen: bool = False) -> bool:
    """Whether to turn the order of the entries along the axis turns that of the answers, and does nothing else.

    seen: some answer must show that, as those of neurons that are silent do not.
    """
    tensors = prober.draw({})
    turned = list(tensors)
    for index, axis in group.places:
        turned[index] = turned[index].flip(axis)
    straight, back = prober.answer(tensors), prober.answer(turned)
    if straight is None or back is None or (seen and all(map(torch.equal, straight, back))):
        return False
    for value, other in zip(straight, back, strict=True):
        along = [axis for axis, size in enumerate(value.shape) if size == group.size]
        same = [torch.allclose(value, other.flip(axis), atol=1e-5) for axis in along if value.is_floating_point()]
        if not any(same):
            return False
    return True


def loops_over_rows(prober: Prober, groups: Sequence[Group], k: int, perhaps: Sequence[int]) -> bool:
    """Whether code that turns once for each entry of an axis does so for rows: in any order.

    perhaps: axes where rows usually are, or that have beside them another one along which layers run.
    """
    return k in perhaps and rows_apart(prober, groups[k], seen=True)


def rows_alone(prober: Prober, groups: Sequence[Group]) -> bool:
    """Whether the only free axis is one of rows: of a step and its states, which lie as layers have them."""
    several = len(groups) == 1 and len({index for index, _ in groups[0].places}) > 1
    return several and rows_apart(prober, groups[0])
