"""Modules that are nothing but a rule for sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Rule = Callable[..., Sequence[Shape] | None]


class Ruled(nn.Module):
    """Answers zeros of the shapes that ``rule`` gives to those of the inputs; fails where it gives None."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, x: Tensor, y: Any = None, z: Any = None) -> tuple[Tensor, ...]:
        shapes = self.rule(*(tuple(value.shape) for value in (x, y, z) if value is not None))
        if shapes is None:
            raise ValueError("not of these sizes")
        return tuple(torch.zeros(shape) for shape in shapes)
