"""Sizes that follow others: what they are, how they travel as data, and how they are found from examples."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rnncore.runtime.format.axes import (
    BATCH,
    TIME,
    Axis,
    Flat,
    Size,
    Steps,
    base_of,
    inner_shape,
    known_size,
    size_from_data,
    size_to_data,
    stride_of,
)
from rnncore.runtime.format.step_fitting import Unfitting, fit_steps

followers = st.builds(Steps, st.just(TIME), st.integers(1, 5), st.integers(-9, 9), st.integers(1, 6))
names = st.sampled_from([BATCH, TIME, "words"])
parts: st.SearchStrategy[Any] = names | followers
sizes: st.SearchStrategy[Size] = st.integers(0, 99) | parts | st.builds(Flat, st.tuples(parts, parts))


@given(sizes)
def test_a_size_travels_as_data(size: Size) -> None:
    back = size_from_data(size_to_data(size))
    assert type(back) is type(size) and back == size and size_to_data(back) == size_to_data(size)


@pytest.mark.parametrize(
    "data",
    [
        1 << 48,
        True,
        1.5,
        None,
        [3],
        {},
        {"flat": ["batch", 3]},
        {"flat": [3, "batch"]},
        {"of": "time", "times": 0, "plus": 0, "over": 1},
        {"of": "time", "times": 1, "plus": 0, "over": 0},
        {"of": "time", "times": 1, "plus": 0},
    ],
    ids=str,
)
def test_other_data_are_no_size(data: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)) as refused:
        size_from_data(data)
    assert str(refused.value) != "None"
    assert size_from_data((1 << 48) - 1) == (1 << 48) - 1


def test_sizes_read_as_people_write_them() -> None:
    assert [str(Steps("n", *numbers)) for numbers in ((1,), (3,), (1, -2), (1, 0, 2), (2, 0, 3), (1, 1, 2))] == [
        "n",
        "3*n",
        "n-2",
        "n//2",
        "(2*n)//3",
        "(n+1)//2",
    ]
    assert Flat((BATCH, Steps(TIME, 1, 1, 2))) == "batch * ((time+1)//2)"


@given(followers, st.integers(0, 200))
def test_a_follower_is_the_rounded_down_fraction_and_never_below_zero(size: Steps, steps: int) -> None:
    wanted = max(0, floor(Fraction(size.times * steps + size.plus, size.over)))
    assert size.at(steps) == known_size(size, {TIME: steps}) == known_size(size, {}, steps) == wanted
    assert base_of(size) == TIME


def test_known_and_unknown_sizes() -> None:
    assert [known_size(size, {"a": 4}, 9) for size in (7, "a", "b")] == [7, 4, 9] and known_size("b", {}) == 0
    assert [base_of(size) for size in (7, "a")] == [None, "a"]
    assert inner_shape((3, Flat(("a", "b")), "c")) == (3, "a", "b", "c")


@given(st.lists(followers, max_size=3))
def test_after_a_stride_every_size_has_grown_by_whole_steps_and_not_before(some: list[Steps]) -> None:
    stride = stride_of([[BATCH, size, 3] for size in some])
    whole = [s for s in range(1, stride + 1) if all(s * size.times % size.over == 0 for size in some)]
    assert whole == [stride]
    assert stride_of([(Flat((BATCH, size)),) for size in some]) == stride
    assert stride_of([[Steps("other", 1, 0, 7), *some]]) == stride


@pytest.mark.parametrize(
    ("axis", "taken", "refused", "words"),
    [
        (Axis("a"), [0, 1, 10**9], [], "any size"),
        (Axis("a", minimum=3), [3, 4], [2, 0], "at least 3"),
        (Axis("a", maximum=5), [0, 5], [6], "at most 5"),
        (Axis("a", 4, 12, 4), [4, 8, 12], [0, 6, 16], "a multiple of 4, at least 4, at most 12"),
        (Axis("a", multiple=2), [0, 2], [1], "a multiple of 2"),
        (Axis("a", minimum=1), [1], [0], "at least 1"),
    ],
)
def test_limits_of_an_axis(axis: Axis, taken: list[int], refused: list[int], words: str) -> None:
    assert all(axis.takes(size) for size in taken) and not any(axis.takes(size) for size in refused)
    assert axis.expected == words and axis.bounded == (words != "any size")


@given(
    st.integers(1, 8), st.integers(-6, 12), st.integers(1, 8), st.integers(1, 3), st.integers(0, 9), st.integers(2, 20)
)
def test_the_rule_is_found_from_two_points_and_questions(
    times: int, plus: int, over: int, multiple: int, start: int, apart: int
) -> None:
    """It holds where it was asked; a plain stride, whatever its window and padding, is exact at every length between."""

    def truth(n: int) -> int:
        return max(0, (times * n + plus) // over)

    low = (16 + start) * multiple
    high = low + multiple * max(apart, over * over)  # nearer ones are those of several strides
    assume(truth(high) > truth(low))
    found = fit_steps(TIME, {low: truth(low), high: truth(high)}, truth, multiple)
    assert known_size(found, {TIME: low}) == truth(low) and known_size(found, {TIME: high}) == truth(high)
    if found == TIME:
        return
    assert isinstance(found, Steps) and found.times <= times
    wrong = [n for n in range(low, high, multiple) if found.at(n) != truth(n)]
    assert not wrong or times > 1 or multiple > 1, (str(found), wrong)


def test_sizes_without_a_rule_are_refused() -> None:
    with pytest.raises(Unfitting, match="falls or stays from 7 to 7 while axis 'n' grows from 10 to 20"):
        fit_steps("n", {10: 7, 20: 7}, lambda _: 7)
    with pytest.raises(Unfitting, match=r"follows axis 'n' by no simple rule: \{3: 9, 4: 16, 5: 25, 9: 81\}"):
        fit_steps("n", {4: 16, 3: 9, 9: 81, 5: 25}, lambda _: None)
    for least in (0, 3):
        with pytest.raises(
            Unfitting, match=r"follows axis 'n' from 5 on, and by another rule below"
        ):  # and not (25*n+27)//26
            fit_steps("n", {n: max(5, n) - least for n in (1, 2, 5, 6, 9)}, lambda _: None)
    assert fit_steps("n", {4: 4, 9: 9}, lambda _: None) == "n"
    assert str(fit_steps("n", {10: 5, 21: 10}, lambda n: n // 2)) == "n//2"
    assert str(fit_steps("n", {10: 5, 21: 11}, lambda n: (n + 1) // 2)) == "(n+1)//2"
    # Where a stride begins decides: (n+1)//6 goes through both points as well.
    assert str(fit_steps("n", {5: 1, 40: 6}, lambda n: (n + 2) // 7)) == "(n+2)//7"


@given(most=st.integers(1, 9), grows=st.integers(10, 40))
def test_the_last_steps_of_however_many_follow_no_rule(most: int, grows: int) -> None:
    """``y[:, -most:]``: (n + a) // b fits such sizes as far as one has looked, and no further."""
    points = {n: min(n, most) for n in (*range(1, most + 2), grows, grows + 1, 2 * grows, 3 * grows)}
    assume(len(set(points.values())) > 1)
    with pytest.raises(Unfitting):
        fit_steps(TIME, points, lambda n: min(n, most))


def test_a_stride_longer_than_what_was_tried_is_found_further_out() -> None:
    stride = Steps(TIME, 1, 0, 20)
    points = {n: stride.at(n) for n in (1, 19, 20, 21, 38)}
    assert fit_steps(TIME, points, stride.at) == stride
