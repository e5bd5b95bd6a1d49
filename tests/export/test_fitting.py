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


@given(
    st.integers(2, 8),
    st.integers(0, 7),
    st.sampled_from([1, 2, 3, 4]),
    st.integers(0, 3),
    st.integers(-3, 3).filter(bool),
)
def test_what_is_missing_up_to_a_multiple_holds_at_other_sizes_or_is_not_known(
    divisor: int, plus: int, stride: int, more: int, factor: int
) -> None:
    seen = [
        {"batch": b, "time": t} for b, t in [(3, 24), (3, 25), (3, 26), (3, 27), (4, 24), (4, 25), (5, 30), (3, 35)]
    ]
    seen += [{"batch": 3, "time": t} for t in (47, 62, 78)]

    def value(time: int) -> int:
        frames = (time + more % stride) // stride
        return factor * (-(frames + plus) % divisor) + 2

    found = fit([value(point["time"]) for point in seen], seen)
    assert found is None or all(found({"batch": 2, "time": time}) == value(time) for time in range(1, 200))


def test_what_is_missing_up_to_whole_strides_is_known_from_long_sequences() -> None:
    seen = [{"batch": b, "time": 96 + t} for b, t in [(3, 0), (3, 1), (3, 2), (3, 3), (4, 0), (4, 1), (5, 6)]]
    seen += [{"batch": 3, "time": 96 + t} for t in (11, 23, 38, 54)]
    found = fit([-(-point["time"] // 2 * -1) % 4 for point in seen], seen)
    assert found is not None
    assert all(found({"batch": 1, "time": t}) == -(-t // 2 * -1) % 4 for t in range(1, 300))
