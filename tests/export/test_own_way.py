"""The trace goes the way of the user's example where a file can keep to it, not where only single lengths go that way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from rnncore.export.tracing.example import Example
from rnncore.export.tracing.other_ways import steps_of_own_way
from rnncore.export.tracing.size_limits import Guard, SizeLimits

TRACED_AT = {"batch": 3, "time": 31}


def guard(holds: Any) -> Guard:
    return Guard("asks", "model.py:1", True, ("time",), (8,), lambda sizes: bool(holds(sizes["time"])))


@pytest.mark.parametrize(
    ("holds", "steps", "own"),
    [
        (lambda n: n % 8 != 0, 16, None),  # a chunk that is full needs no padding: padding by nothing is as right
        (lambda n: n <= 100, 160, 161),
        (lambda n: n > 20, 12, 13),
        (lambda n: n != 40, 40, None),
        (lambda n: n <= 100, 50, None),
    ],
)
def test_the_way_of_the_example_is_taken_if_a_file_can_keep_to_it(holds: Any, steps: int, own: int | None) -> None:
    example = Example.of(nn.Identity(), torch.randn(2, steps, 4), None, "auto")
    traced: Any = SimpleNamespace(limits=SizeLimits((guard(holds),)), sizes=TRACED_AT)
    assert steps_of_own_way(traced, example) == own
