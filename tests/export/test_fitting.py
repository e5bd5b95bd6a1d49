"""Numbers that follow the sizes of axes are found from few points, with many axes as with two."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from rnncore.export.tracing.rolling.fitting import fit

AXES = ("batch", "time", "a", "b", "c")


def points(axes: int) -> list[dict[str, int]]:
    """As they are recorded: batch and time together, each other axis alone, and all at once."""
    base = dict(zip(AXES, (3, 6, 3, 5, 7), strict=True))
    base = {name: base[name] for name in AXES[:axes]}
    found = [{**base, "batch": b, "time": t} for b, t in [(3, 6), (3, 7), (3, 8), (3, 9), (4, 6), (4, 7), (5, 12)]]
    others = list(base)[2:]
    found += [{**found[k], name: base[name] + k + 1} for name in others for k in (0, 1, 4)]
    return found + ([{**found[5], **{name: base[name] + 5 for name in others}}] if len(others) > 1 else [])


@st.composite
def formulas(draw: st.DrawFn) -> tuple[int, list[tuple[int, tuple[str, ...]]]]:
    """Number of axes, and terms: one product and a number, or a sum of sizes and a number."""
    axes = draw(st.integers(2, 5))
    names = st.lists(st.sampled_from(AXES[:axes]), min_size=1, unique=True)
    factor = st.integers(-3, 3).filter(bool)
    chosen = draw(names)
    terms = [tuple(chosen)] if draw(st.booleans()) else [(name,) for name in chosen]
    return axes, [(draw(factor), term) for term in terms] + [(draw(st.integers(-9, 9)), ())]


@given(formulas(), st.lists(st.integers(1, 50), min_size=5, max_size=5))
def test_products_and_sums_hold_at_other_sizes(
    drawn: tuple[int, list[tuple[int, tuple[str, ...]]]], other: list[int]
) -> None:
    axes, terms = drawn

    def value(sizes: dict[str, int]) -> int:
        return sum(factor * math.prod(sizes[name] for name in names) for factor, names in terms)

    seen = points(axes)
    found = fit([value(point) for point in seen], seen)
    assert found is not None
    sizes = dict(zip(AXES[:axes], other, strict=False))
    assert found(sizes) == value(sizes)


def test_a_stride_of_eight_is_not_taken_for_one_of_seven() -> None:
    """``time // 4``, then every second step: at the sizes of a recording seven fits as well."""
    points = [{"batch": b, "time": t} for b, t in ((3, 6), (3, 7), (3, 8), (3, 9), (4, 6), (4, 7), (5, 12), (3, 17))]
    found = fit([(p["time"] // 4 + 1) // 2 for p in points], points)
    assert found is not None
    assert [found({"batch": 3, "time": t}) for t in range(1, 200)] == [(t // 4 + 1) // 2 for t in range(1, 200)]
