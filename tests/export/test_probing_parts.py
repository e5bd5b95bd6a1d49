"""Which sizes axes take and how outputs follow them, of modules that are nothing but a rule for sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore.export.tracing.affine_ties import Follower, find_affine_ties
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.following import fitted_shapes, value_of
from rnncore.export.tracing.groups import (
    Group,
    _candidates,
    _some,
    find_groups,
    find_limits,
    keep_to_strides,
    leave_empty,
)
from rnncore.export.tracing.probing import Prober
from rnncore.runtime.format.axes import Flat, Steps
from rnncore.runtime.format.step_fitting import Unfitting
from tests.export.ruled import Rule, Ruled, Shape


def prober(rule: Rule, *shapes: Shape) -> Prober:
    module = Ruled(rule)
    return Prober(module, Example.of(module, tuple(torch.randn(shape) for shape in shapes), None, False))


def limits(takes: Callable[[int], bool], size: int) -> tuple[int, int, int | None]:
    group = Group(((0, 0),), size)
    find_limits(prober(lambda x: [x] if takes(x[0]) else None, (size,)), group)
    assert all(map(takes, group.outcomes)) and size in group.outcomes
    return group.minimum, group.multiple, group.maximum


# ------------------------------------------------------------------------------------------------------------ limits
@given(st.data(), st.integers(1, 40))
def test_the_least_size_is_found(data: st.DataObject, size: int) -> None:
    least = data.draw(st.integers(1, size))
    assert limits(lambda n: n >= least, size) == (least, 1, None)


@given(st.data(), st.integers(1, 6), st.integers(1, 12))
def test_multiples_and_the_least_of_them_are_found(data: st.DataObject, one: int, many: int) -> None:
    least = data.draw(st.integers(1, many)) * one
    assert limits(lambda n: n % one == 0 and n >= least, one * many) == (least, one, None)


@given(st.data(), st.integers(2, 30))
def test_the_largest_size_is_found_where_nothing_far_is_taken(data: st.DataObject, size: int) -> None:
    most = data.draw(st.integers(size, 2 * size - 1))
    assert limits(lambda n: n <= most, size) == (1, 1, most)


def test_what_was_seen_on_the_way_is_kept() -> None:
    group = Group(((0, 1),), 9)
    find_limits(prober(lambda x: [(x[0], x[1] // 2)], (2, 9)), group)
    assert sorted(group.outcomes) == [1, 2, 3, 9, 10, 11, 12, 18, 27]
    assert group.outcomes[9].shapes == ((2, 4),) and group.outcomes[27].shapes == ((2, 13),)
    group = Group(((0, 0),), 8)
    find_limits(prober(lambda x: [x] if x[0] % 4 == 0 and x[0] > 4 else None, (8,)), group)
    assert (group.minimum, group.multiple, sorted(group.outcomes)) == (8, 4, [8, 12, 16, 20, 24])
    assert limits(lambda n: n in (6, 12, 18), 6) == (6, 6, None) and limits(lambda n: n in (6, 18), 6) == (6, 6, None)


def test_sizes_at_which_an_axis_goes_are_none_of_them() -> None:
    group = Group(((0, 0),), 5)
    find_limits(prober(lambda x: [x] if x[0] > 1 else [()], (5,)), group)
    assert group.minimum == 2


def test_sizes_at_which_nothing_comes_out_are_left_out() -> None:
    group, asked = Group(((0, 0),), 9), prober(lambda x: [(max(0, x[0] - 4),)], (9,))
    find_limits(asked, group)
    assert group.minimum == 1
    leave_empty(asked, group)
    assert group.minimum == 5 and min(group.outcomes) == 5 and group.outcomes[9].shapes == ((5,),)
    group, asked = Group(((0, 0),), 3), prober(lambda x: [(0, x[0])], (3,))
    find_limits(asked, group)
    leave_empty(asked, group)
    assert group.minimum == 1, "it is empty at every size"
    group, asked = Group(((0, 0),), 12), prober(lambda x: [(max(0, x[0] - 7),)] if x[0] % 3 == 0 else None, (12,))
    find_limits(asked, group)
    leave_empty(asked, group)
    assert (group.minimum, group.multiple) == (9, 3)


def test_outputs_that_grow_in_strides_keep_to_them() -> None:
    def kept(rule: Callable[[int], int], size: int) -> tuple[int, int, int]:
        group, asked = Group(((0, 0),), size), prober(lambda x: [(rule(x[0]),)], (size,))
        find_limits(asked, group)
        stride = keep_to_strides(asked, group)
        if stride > 1 and group.multiple > 1:
            assert all(n % stride == 0 and n >= group.minimum for n in group.outcomes)
            assert {group.minimum, group.minimum + stride, size, *(size + k * stride for k in (1, 2, 3))} <= set(
                group.outcomes
            )
        return stride, group.multiple, group.minimum

    assert kept(lambda n: n // 4 * 4, 12) == (4, 4, 4)
    assert kept(lambda n: n // 4 * 4, 13) == (4, 1, 1), "its own size is none"
    assert kept(lambda n: (n + 1) // 4 * 4, 12) == (1, 1, 1), "it grows elsewhere"
    assert kept(lambda n: n, 12) == (1, 1, 1) and kept(lambda n: 7, 12) == (1, 1, 1)
    assert kept(lambda n: n // 2, 6) == (2, 2, 2)


# ------------------------------------------------------------------------------------------------------------- groups
def found(rule: Rule, *shapes: Shape, tied: Sequence[tuple[tuple[int, int], ...]] = ()) -> list[Any]:
    groups = find_groups(prober(rule, *shapes), [], tied)
    return [
        (group.places, group.size, group.minimum, group.multiple, group.maximum, group.followers) for group in groups
    ]


def test_free_axes_are_told_from_those_that_are_tied() -> None:
    x, y = (0, 0), (0, 1)
    assert found(lambda x: [x], (3, 5)) == [((x,), 3, 1, 1, None, ()), ((y,), 5, 1, 1, None, ())]
    assert found(lambda x: [x] if x[1] == 5 else None, (3, 5)) == [((x,), 3, 1, 1, None, ())]
    assert found(lambda x: [x] if x[0] == x[1] else None, (4, 4)) == [((x, y), 4, 1, 1, None, ())]
    assert found(lambda x, y: [x] if x == y else None, (2, 7), (2, 7)) == [
        (((0, 0), (1, 0)), 2, 1, 1, None, ()),
        (((0, 1), (1, 1)), 7, 1, 1, None, ()),
    ]
    assert found(lambda x, y: [x, y] if x[0] == y[0] else None, (2, 7), (2, 5)) == [
        ((x_,), n, 1, 1, None, ()) for x_, n in (((0, 1), 7), ((1, 1), 5))
    ] + [(((0, 0), (1, 0)), 2, 1, 1, None, ())]


def test_what_may_only_grow_is_tied_to_what_it_may_not_outgrow() -> None:
    # Rows beyond those of the second input are not read: both are one axis.
    rule: Rule = lambda x, y: [(y[0], 2)] if x[0] >= y[0] else None  # noqa: E731
    assert found(rule, (4, 2), (4, 3))[-1][:2] == (((0, 0), (1, 0)), 4)


def test_an_axis_that_somebody_named_takes_its_partner_along() -> None:
    rule: Rule = lambda x, y: [x] if x[0] == y[0] else None  # noqa: E731
    assert found(rule, (3, 5), (3,), tied=[((0, 0),)])[0][0] == ((0, 0), (1, 0))
    free: Rule = lambda x, y: [x]  # noqa: E731
    assert found(free, (3, 5), (3,), tied=[((0, 0),)])[0][0] == ((0, 0),)


def test_sizes_of_one_are_made_two_first() -> None:
    asked = prober(lambda x, y: [x] if x[0] == y[0] else None, (1, 5), (1,))
    groups = find_groups(asked, [], [])
    assert asked.base == {(0, 0): 2, (0, 1): 5, (1, 0): 2}
    assert [group.places for group in groups] == [((0, 1),), ((0, 0), (1, 0))]
    asked = prober(lambda x: [x] if x[1] == 1 else None, (1, 1))
    find_groups(asked, [], [])
    assert asked.base == {(0, 0): 2, (0, 1): 1}
    asked = prober(lambda x: [x] if x[0] == 1 else None, (1, 1))
    find_groups(asked, [], [])
    assert asked.base == {(0, 0): 1, (0, 1): 2}


def test_an_axis_that_follows_another_is_found() -> None:
    def samples(x: Shape, y: Shape) -> list[Shape] | None:
        return [(x[0],)] if len(torch.zeros(3 * x[0] + 2)) == y[0] else None

    groups = find_groups(prober(samples, (5,), (17,)), [], [])
    assert [(g.places, g.followers) for g in groups] == [(((0, 0),), (Follower((1, 0), 3, 2),))]
    assert groups[0].sizes(7) == {(0, 0): 7, (1, 0): 23} and groups[0].minimum == 1
    assert Group(((0, 0),), 5, followers=(Follower((1, 0), 3, -7),)).run(prober(samples, (5,), (8,)), 2) is None
    assert find_affine_ties(prober(lambda x, y: [x], (5,), (6,)), [(0, 0), (1, 0)]) == [], "each is free alone"


def test_candidates_come_in_the_order_in_which_they_are_likely() -> None:
    asked = prober(lambda x, y: [x], (4, 4), (4, 6))
    places = [(0, 0), (0, 1), (1, 0)]
    assert list(_candidates(asked, places)) == [((0, 0), (1, 0)), ((0, 1), (1, 0)), ((0, 0), (0, 1))]
    assert list(_candidates(asked, [(1, 1)])) == []
    many = [[None, (k, 0), (k, 1)] for k in range(8)]
    assert _some(many) == [tuple((k, axis) for k in range(8)) for axis in (0, 1)]
    assert len(_some(many[:7])) == 3**7 and _some([[None, (0, 0)]]) == [(None,), ((0, 0),)]
    assert len(_some([[None, (k, 0)] for k in range(12)])) == 4096


# ---------------------------------------------------------------------------------------------------------- following
def shapes_of(rule: Rule, *shapes: Shape, names: dict[int, str], said: Any = None) -> tuple[Any, list[Group]]:
    asked = prober(rule, *shapes)
    groups = find_groups(asked, [], [])
    groups, kept, found_shapes = fitted_shapes(asked, groups, names, said or {})
    return (kept, [tuple(map(str, shape)) for shape in found_shapes]), groups


def test_sizes_of_outputs_follow_those_of_inputs() -> None:
    names = {0: "batch", 1: "time"}
    cases: list[tuple[Rule, list[tuple[str, ...]]]] = [
        (lambda x: [x, (x[0], 7)], [("batch", "time"), ("batch", "7")]),
        (lambda x: [(x[0], x[1] // 2)], [("batch", "time//2")]),
        (lambda x: [(2 * x[1] + 3, x[0])], [("2*time+3", "batch")]),
        # Of zeros either order is right.
        (lambda x: [(x[0] * x[1], 3)], [("time * batch", "3")]),
        (lambda x: [(x[0] * (x[1] // 2),)], [("(time//2) * batch",)]),
    ]
    for rule, wanted in cases:
        assert shapes_of(rule, (2, 9), names=names)[0] == (names, wanted)


def test_axes_begin_later_where_that_makes_a_rule() -> None:
    names = {0: "batch", 1: "time"}
    found_shapes, groups = shapes_of(lambda x: [(x[0], max(0, x[1] - 4))], (2, 9), names=names)
    assert found_shapes == (names, [("batch", "time-4")]) and groups[1].minimum == 5
    found_shapes, groups = shapes_of(lambda x: [(x[0], max(2, x[1]))], (2, 9), names=names)
    assert found_shapes == (names, [("batch", "time")]) and groups[1].minimum == 2


def test_axes_that_make_no_rule_are_fixed_unless_somebody_named_them() -> None:
    # Features may be any number that fits to the steps.
    names = {0: "batch", 1: "time", 2: "x_2"}
    rule: Rule = lambda x: [(x[0], x[1] * x[2] * x[0])]  # noqa: E731
    with pytest.raises(Unfitting, match=r"axis 1 of output 0 follows 3 axes of the inputs"):
        shapes_of(rule, (2, 3, 4), names=names, said={(0, 1): "time", (0, 2): "x_2"})
    found_shapes, _ = shapes_of(lambda x: [(x[0], x[1] + (x[2] - 4) ** 2)], (2, 9, 4), names=names)
    assert found_shapes == ({0: "batch", 1: "time"}, [("batch", "time")])
    names = {0: "batch", 1: "time"}
    with pytest.raises(
        Unfitting, match="axis 0 of output 0 follows two axes of the inputs, and is not batch times steps"
    ):
        shapes_of(lambda x: [(x[0] + x[1],)], (2, 9), names=names, said={(0, 1): "time"})


def test_strides_of_outputs_are_asked_for_in_the_example() -> None:
    names = {0: "batch", 1: "time"}

    def frames(x: Shape) -> list[Shape]:
        return [(x[0], x[1] // 4 * 4)]

    (kept, sizes), groups = shapes_of(frames, (2, 12), names=names)
    assert (kept, sizes, groups[1].multiple, groups[1].minimum) == (names, [("batch", "time")], 4, 4)
    says = "outputs grow by 4 at a time while axis 1 of 'x' grows: "
    says += "give an example of a multiple of 4 there, such as 12; it has 14"
    with pytest.raises(Unfitting) as caught:
        shapes_of(frames, (2, 14), names=names)
    assert str(caught.value) == says


def test_sizes_as_numbers() -> None:
    sizes = {"batch": 3, "time": 7}
    assert value_of(5, sizes) == 5 and value_of("time", sizes) == 7
    assert value_of(Steps("time", 2, 1, 1), sizes) == 15
    assert value_of(Flat(("batch", Steps("time", 1, 1, 2))), sizes) == 12
