"""What a module asks on ways that its trace did not go, and squeezes that drop an axis of one row."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example, Extent
from rnncore.export.tracing.operators import Operators
from rnncore.export.tracing.other_ways import LEAST_RANGE, _other_side, steps_of_own_way, with_other_ways
from rnncore.export.tracing.size_limits import Guard, SizeLimits
from rnncore.export.tracing.squeezes import keeping_axes

X = torch.randn(2, 40, 4)


def guard(
    holds: Callable[[dict[str, int]], bool], *numbers: int, axes: tuple[str, ...] = ("time",), own: bool = True
) -> Guard:
    return Guard(str(numbers), "", own, axes, numbers, holds)  # type: ignore[arg-type]


class Passes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def steps(*guards: Guard, time: int = 40, extents: Any = None, traced: int = 31) -> int | None:
    example = Example.of(Passes(), torch.randn(2, time, 4), None, False)
    object.__setattr__(example, "extents", extents or {})
    trace: Any = SimpleNamespace(limits=SizeLimits(guards), sizes={"batch": 19, "time": traced})
    return steps_of_own_way(trace, example)


def test_a_trace_goes_the_way_of_the_example() -> None:
    short = guard(lambda s: s["time"] <= 35, 35)
    assert steps(short) == 41 and steps(short, time=30) is None, "it does already"
    assert steps() is None and steps(guard(lambda s: s["batch"] == 9, axes=("batch",))) is None
    assert steps(short, time=36) == 37 and steps(short, extents={"time": Extent("time", 1, 40)}) is None, "five are few"
    shorter = guard(lambda s: s["time"] <= 30, 30)
    assert steps(shorter, extents={"time": Extent("time", 1, 40)}) == 40
    assert steps(short, extents={"time": Extent("time", 4, None, 4)}) == 40
    upper = guard(lambda s: s["time"] <= 40, 40)
    assert steps(shorter, upper, time=40) == 40, "one more goes another way"
    single = guard(lambda s: s["time"] != 40, 40)
    assert steps(single) is None and LEAST_RANGE == 8, "of single lengths there is no way"
    band = guard(lambda s: not 38 <= s["time"] < 46, 38, 46)
    assert steps(band) == 41 and steps(guard(lambda s: not 38 <= s["time"] < 45, 38, 45)) is None
    with_batch = guard(lambda s: s["time"] < 20 * s["batch"], axes=("batch", "time"))
    assert steps(with_batch) == 41


def test_the_other_side_of_a_guard_is_near() -> None:
    at = {"batch": 19, "time": 31}
    assert _other_side(guard(lambda s: s["time"] <= 100, 100), at, 1000) == {"batch": 19, "time": 101}
    assert _other_side(guard(lambda s: s["time"] > 20, 20), at, 1000) == {"batch": 19, "time": 20}
    assert _other_side(guard(lambda s: s["time"] > 1, 1), at, 1000) is None, "no step, or one, is no trace"
    assert _other_side(guard(lambda s: s["time"] <= 100, 100, own=False), at, 1000) is None
    assert _other_side(guard(lambda s: s["time"] <= 100, 100), at, 90) is None
    two = guard(lambda s: s["batch"] < 50, 50, axes=("batch", "time"))
    assert _other_side(two, at, 1000) == {"batch": 50, "time": 31}


class Squeezes(nn.Module):
    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.gru, self.head, self.run = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 1), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


KEPT: dict[str, tuple[Callable[[Any, Tensor], Tensor], tuple[int, ...] | None]] = {
    "scores": (lambda s, x: s.head(s.gru(x)[0]).squeeze(), (1, 7)),
    "last": (lambda s, x: s.gru(x)[1].squeeze() * 2, (1, 5)),
    "one axis": (lambda s, x: s.head(s.gru(x)[0]).squeeze(-1), None),
    "none of one": (lambda s, x: s.gru(x)[0].squeeze(2), None),
    "in words": (lambda s, x: torch.squeeze(input=s.head(s.gru(x)[0])), None),
    "other numbers": (lambda s, x: torch.softmax(s.gru(x)[1].squeeze(), 0), None),
}


@pytest.mark.parametrize("name", KEPT)
def test_axes_of_one_row_are_kept(name: str) -> None:
    run, shape = KEPT[name]
    module = Squeezes(run).eval()
    kept, remarks = keeping_axes(module, Example.of(module, torch.randn(2, 6, 4), None, False))
    x = torch.randn(1, 7, 4)
    with torch.no_grad():
        assert tuple(kept(x).shape) == (shape or tuple(run(module, x).shape))
        assert torch.equal(kept(x).flatten(), run(module, x).flatten())
        assert torch.equal(kept(torch.cat([x, x])), run(module, torch.cat([x, x])))
    if shape is None:
        assert remarks == [] and type(kept) is Squeezes
    else:
        assert len(remarks) == 1 and remarks[0].startswith(
            "squeeze() drops the batch or time axis where it is 1; the file keeps it: "
        )
        assert "test_way_parts.py" in remarks[0] and type(kept).__name__ == "Squeezes"


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 50:
            return x * 2 if x.shape[1] > 90 else x - 1
        return x.cumsum(1)


def test_ways_behind_ways_are_asked_as_well() -> None:
    module, at = Branches(), {"batch": 19, "time": 31}
    axes = {"x": ("batch", "time", None)}
    example = find_axes(module, Example.of(module, torch.randn(2, 6, 4), axes, False), axes)
    first = SizeLimits((guard(lambda s: s["time"] <= 50, 50),), reach=3)
    found = with_other_ways(first, module, Operators([]), example, at, 1000)
    assert {n for own in found.guards for n in own.numbers} >= {50, 90} and found.reach >= 3
    assert with_other_ways(first, module, Operators([]), example, {"batch": 19}, 1000) is first
    plain = SizeLimits()
    assert with_other_ways(plain, module, Operators([]), example, at, 1000).guards == ()
