"""A function that computes a linear recurrence in parallel is known by what it gives, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rnncore.export.tracing.rolling.scans import Scan, as_loop, find_scan


def scan_of(axis: int, reverse: bool, factors_first: bool, change: float) -> Any:
    """A function over doubled distances; ``change`` 0 is a linear recurrence, another one is nearly."""

    class Doubling(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, one: Tensor, other: Tensor) -> Tensor:  # type: ignore[override]
            a, x = (one, other) if factors_first else (other, one)
            a, x = (v.movedim(axis, 0).flip(0) if reverse else v.movedim(axis, 0) for v in (a, x))
            far = 1
            while far < x.shape[0]:
                x = torch.cat([x[:far], x[far:] + a[far:] * x[:-far] * (1 + change)])
                a = torch.cat([a[:far], a[far:] * a[:-far]])
                far *= 2
            return (x.flip(0) if reverse else x).movedim(0, axis)

    return Doubling


@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4).filter(lambda sizes: max(sizes) >= 3),
    place=st.integers(0, 3),
    reverse=st.booleans(),
    factors_first=st.booleans(),
    change=st.sampled_from([0.0, 1e-5]),
)
def test_a_linear_recurrence_is_found_along_any_axis(
    shape: list[int], place: int, reverse: bool, factors_first: bool, change: float
) -> None:
    axis = place % len(shape)
    args = [torch.randn(shape), torch.randn(shape)]
    found = find_scan(scan_of(axis, reverse, factors_first, change), args)
    right = Scan(0 if factors_first else 1, axis, reverse)
    assert found == (right if change == 0 and shape[axis] >= 3 else None)
    if found is not None:
        wanted = scan_of(axis, reverse, factors_first, 0).forward(None, *args)
        torch.testing.assert_close(as_loop(found, args), wanted)


def test_other_functions_are_left_alone() -> None:
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
            return a * b

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
            raise ValueError("not of such numbers")

    x = torch.randn(2, 5)
    assert find_scan(Product, [x, x]) is None
    assert find_scan(Fails, [x, x]) is None
    assert find_scan(Product, [x, torch.randn(5)]) is None
    assert find_scan(Product, [x, 2]) is None
