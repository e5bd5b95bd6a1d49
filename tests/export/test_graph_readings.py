"""What is read off a traced graph, operator by operator: looks along time, numbers that meet an axis, ranges of values."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rnncore.export.tracing.size_limits import Guard, find_size_limits
from rnncore.export.tracing.time_operators import CONVOLUTION, TimeAxes, find_time_operators
from rnncore.export.tracing.value_ranges import ValueRanges, held_by, is_integer, operator_name
from rnncore.layers import GRU
from tests.export.fake_graphs import FakeGraph

aten = torch.ops.aten
ANY = (-(2**63), 2**63 - 1)
Build = Callable[[FakeGraph], Any]


class Parts(nn.Module):
    """A module with a part, a layer of rnncore and one of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.layer, self.conv = nn.Identity(), GRU(4, 5), nn.Conv1d(4, 5, 3)


def time_lines(build: Build) -> list[str]:
    graph = FakeGraph()
    build(graph)
    return find_time_operators(graph.program, Parts(), {graph.time}, "inside")


def channels(g: FakeGraph) -> Any:
    return g.add(aten.transpose.int, g.x, 1, 2)


def kernel(g: FakeGraph, size: int) -> Any:
    return g.add(aten.new_zeros.default, g.x, [5, 4, size])


def convolved(g: FakeGraph, size: int, padding: int = 0, dilation: int = 1) -> Any:
    return g.add(aten.conv1d.default, channels(g), kernel(g, size), None, [1], [padding], [dilation])


LINES: dict[str, tuple[Build, str]] = {
    "conv": (lambda g: convolved(g, 3), f"with kernel 3 over the time axis ({CONVOLUTION})"),
    "conv of one": (lambda g: convolved(g, 1), ""),
    "conv beside": (
        lambda g: g.add(
            aten.conv1d.default,
            g.add(aten.reshape.default, g.x, [-1, 1, 4]),
            g.add(aten.new_zeros.default, g.x, [5, 1, 3]),
        ),
        "",
    ),
    "pool": (lambda g: g.add(aten.avg_pool1d.default, channels(g), [2]), "pools over the time axis"),
    "pool beside": (lambda g: g.add(aten.avg_pool1d.default, g.x, [2]), ""),
    "pool of two": (lambda g: g.add(aten.avg_pool2d.default, g.x, [2, 2]), "pools over the time axis"),
    "mean": (lambda g: g.add(aten.mean.dim, g.x, [1]), "computes mean over the time axis"),
    "mean beside": (lambda g: g.add(aten.mean.dim, g.x, [-1]), ""),
    "mean of all": (lambda g: g.add(aten.mean.default, g.x), "computes mean over the time axis"),
    "mean of two": (lambda g: g.add(aten.mean.dim, g.x, [-2, -1], True), "computes mean over the time axis"),
    "named": (lambda g: g.add(aten.amax.default, g.x, dim=[-2]), "computes amax over the time axis"),
    "larger": (lambda g: g.add(aten.max.other, g.x, g.x), ""),
    "largest": (lambda g: g.add(aten.max.dim, g.x, 1), "computes max over the time axis"),
    "sums": (lambda g: g.add(aten.cumsum.default, g.x, 1), "computes cumsum over the time axis"),
    "softmax": (lambda g: g.add(aten._softmax.default, g.x, -2, False), "computes softmax over the time axis"),
    "flip": (lambda g: g.add(aten.flip.default, g.x, [1]), "computes flip over the time axis"),
    "flip beside": (lambda g: g.add(aten.flip.default, g.x, [0, 2]), ""),
    "roll": (lambda g: g.add(aten.roll.default, g.x, [1], [1]), "computes roll over the time axis"),
    "windows": (lambda g: g.add(aten.unfold.default, g.x, 1, 2, 1), "computes unfold over the time axis"),
    "frames": (
        lambda g: g.add(aten.im2col.default, g.add(aten.unsqueeze.default, g.x, 1), [3, 4], [1, 1], [0, 0], [1, 4]),
        "takes windows over the time axis",
    ),
    "all": (lambda g: g.add(aten.any.default, g.add(aten.gt.Scalar, g.x, 0)), "computes any over the time axis"),
    "layer norm": (lambda g: g.add(aten.layer_norm.default, g.x, [4]), ""),
    "norm of two": (
        lambda g: g.add(aten.layer_norm.default, g.x, [g.size(g.x, 1), 4]),
        "normalises over the time axis",
    ),
    "group norm": (lambda g: g.add(aten.group_norm.default, channels(g), 2), "normalises over the time axis"),
    "group norm beside": (lambda g: g.add(aten.group_norm.default, g.add(aten.reshape.default, g.x, [-1, 4]), 2), ""),
    "batch norm": (
        lambda g: g.add(aten._native_batch_norm_legit.no_stats, channels(g), None, None, True, 0.1, 1e-5),
        "normalises over the batch and the time axis",
    ),
    "batch norm at rest": (
        lambda g: g.add(
            aten.batch_norm.default,
            channels(g),
            None,
            None,
            *[g.add(aten.new_ones.default, g.x, [4])] * 2,
            *(False, 0.1, 1e-5, False),
        ),
        "",
    ),
    "attention": (
        lambda g: g.add(aten.scaled_dot_product_attention.default, *[g.add(aten.unsqueeze.default, g.x, 1)] * 3),
        "attends over the time axis",
    ),
    "product": (
        lambda g: g.add(aten.matmul.default, channels(g), g.x),
        "multiplies and sums over the time axis, as attention does",
    ),
    "product beside": (lambda g: g.add(aten.matmul.default, g.x, channels(g)), ""),
    "pad": (
        lambda g: g.add(aten.constant_pad_nd.default, g.x, [0, 0, 2, 0]),
        "pads the time axis, which in a stream happens to every chunk",
    ),
    "pad beside": (lambda g: g.add(aten.constant_pad_nd.default, g.x, [1, 1, 0, 0]), ""),
    "step by step": (lambda g: g.add(aten.tanh.default, g.x), ""),
    "no time": (lambda g: g.add(aten.mean.dim, g.add(aten.select.int, g.x, 1, 0), [1]), ""),
}


@pytest.mark.parametrize("name", LINES)
def test_what_looks_along_time(name: str) -> None:
    build, line = LINES[name]
    assert time_lines(build) == ([f"Parts.forward {line}"] if line else [])


def test_parts_are_named_once_and_layers_of_ours_not_at_all() -> None:
    def build(g: FakeGraph) -> None:
        for path in ("inside.part", "inside.part@1", "inside.layer", "inside.layer.cell", "inside.gone", "inside"):
            g.add(aten.mean.dim, g.x, [1], path=path)
            g.add(aten.cumsum.default, g.x, 1, path=path)

    assert time_lines(build) == [
        "part: Identity computes mean over the time axis",
        "gone: call computes mean over the time axis",
        "Parts.forward computes mean over the time axis",
        "Parts.forward computes cumsum over the time axis",
    ]


def test_axes_along_time_are_those_whose_size_has_its_symbol() -> None:
    g = FakeGraph()
    axes = TimeAxes({g.time})
    assert axes.of(g.x) == [1] and axes.of(3) == [] and axes.of(g.size(g.x, 1)) == [] and not axes.depends(7)
    assert axes.of(g.add(aten.cat.default, [g.x, g.x], 1)) == [1]
    assert axes.of(g.add(aten.reshape.default, g.x, [-1, 4])) == [0]


# ------------------------------------------------------------------------------------------------- numbers that meet axes
def numbers(build: Build) -> set[tuple[str, int, bool]]:
    graph = FakeGraph(anew=True)
    build(graph)
    limits = find_size_limits(graph.program, {graph.batch: "batch", graph.time: "time"}, "time")
    return {(n.axis, n.value, n.reaches) for n in limits.numbers}


def count(g: FakeGraph) -> Any:
    return g.add(aten.arange.default, g.size(g.x, 1))


NUMBERS: dict[str, tuple[Build, set[tuple[str, int, bool]]]] = {
    "slice": (lambda g: g.add(aten.slice.Tensor, g.x, 1, 5, 2**62), {("time", 5, True), ("time", 5, False)}),
    "slice from behind": (lambda g: g.add(aten.slice.Tensor, g.x, 1, -6, 2**62), {("time", 6, True)}),
    "slice of rows": (lambda g: g.add(aten.slice.Tensor, g.x, 0, 0, -4), {("batch", 4, True)}),
    "slice beside": (lambda g: g.add(aten.slice.Tensor, g.x, 2, 3, 4), set()),
    "small": (lambda g: g.add(aten.slice.Tensor, g.x, 1, 2, 2**62), set()),
    "select": (lambda g: g.add(aten.select.int, g.x, 1, 4), {("time", 4, True)}),
    "windows": (
        lambda g: g.add(aten.unfold.default, g.x, 1, 5, 3),
        {("time", 5, True), ("time", 3, True), ("time", 5, False)},
    ),
    "conv": (lambda g: convolved(g, 4, 0, 3), {("time", 9, True), ("time", 9, False)}),
    "conv padded": (lambda g: convolved(g, 2, 5), {("time", 5, True), ("time", 9, False)}),
    "pool": (lambda g: g.add(aten.avg_pool1d.default, channels(g), [6], [1]), {("time", 5, True), ("time", 5, False)}),
    "pad": (lambda g: g.add(aten.constant_pad_nd.default, g.x, [9, 9, 0, 8]), {("time", 8, True)}),
    "roll": (lambda g: g.add(aten.roll.default, g.x, [4, -5], [1, 0]), {("time", 4, True), ("batch", 5, True)}),
    "cat": (
        lambda g: g.add(aten.cat.default, [g.add(aten.new_zeros.default, g.x, [3, 6, 4]), g.x], 1),
        {("time", 6, True)},
    ),
    "positions": (lambda g: g.add(aten.ge.Scalar, count(g), 20), {("time", 20, True)}),
    "shares of positions": (lambda g: g.add(aten.mul.Scalar, count(g), 0.125), {("time", 8, True)}),
    "positions and buffers": (
        lambda g: g.add(aten.lt.Tensor, g.add(aten.unsqueeze.default, count(g), 1), g.limits),
        {("time", 20, True), ("time", 8, True)},
    ),
    "counts": (lambda g: g.add(aten.gt.Scalar, g.ids, 12), {("time", 12, False), ("batch", 12, False)}),
    "floats": (lambda g: g.add(aten.gt.Scalar, g.x, 12), set()),
    "sizes": (
        lambda g: g.add(aten.new_zeros.default, g.x, [g.add(torch.sym_sum, [g.size(g.x, 1), 15])]),
        {("time", 15, False)},
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_meet_an_axis(name: str) -> None:
    build, wanted = NUMBERS[name]
    assert numbers(build) == wanted


def test_where_a_condition_turns_is_found() -> None:
    def turns(holds: Callable[[int], bool], *inside: int, most: int = 1000) -> list[int]:
        guard = Guard("", "", True, ("time",), inside, lambda sizes: holds(sizes["time"]) and sizes["batch"] == 2)
        return guard.turns("time", {"batch": 2, "time": 9}, most)

    assert turns(lambda n: n <= 100, 100) == [101] and turns(lambda n: n > 100, 100) == [101]
    assert turns(lambda n: n != 7) == [7, 8] and turns(lambda n: n < 700) == [700] and turns(lambda n: True) == []
    assert turns(lambda n: n != 300, 300) == [300, 301] and turns(lambda n: n < 500, most=500) == [500]
    assert turns(lambda n: n < 2) == [2] and turns(lambda n: n <= 1000, 1000) == []


# ------------------------------------------------------------------------------------------------------------- ranges
def of_ids(name: str, *args: Any, **named: Any) -> Build:
    packet, _, overload = name.partition(".")
    target = getattr(getattr(aten, packet), overload)
    return lambda g: g.add(target, g.ids, *args, **named)


def beside(name: str, number: int) -> Build:
    """An operation of the ids, which are of 0 to 10, and of those plus a number."""
    packet, _, overload = name.partition(".")
    return lambda g: g.add(getattr(getattr(aten, packet), overload), g.ids, g.add(aten.add.Scalar, g.ids, number))


RANGES: dict[str, tuple[Build, tuple[int, int] | None]] = {
    "as they are": (lambda g: g.ids, (0, 10)),
    "more": (of_ids("add.Scalar", 3), (3, 13)),
    "twice more": (of_ids("add.Scalar", 3, alpha=2), None),
    "less": (of_ids("sub.Scalar", 3), (-3, 7)),
    "from": (of_ids("rsub.Scalar", 3), (-7, 3)),
    "times": (of_ids("mul.Scalar", -2), (-20, 0)),
    "negative": (of_ids("neg.default"), (-10, 0)),
    "product": (beside("mul.Tensor", -4), (-40, 60)),
    "difference": (beside("sub.Tensor", 5), (-15, 5)),
    "size of": (lambda g: g.add(aten.abs.default, g.add(aten.sub.Scalar, g.ids, 4)), (0, 6)),
    "size of what is above": (lambda g: g.add(aten.abs.default, g.add(aten.add.Scalar, g.ids, 4)), (4, 14)),
    "size of what is below": (lambda g: g.add(aten.abs.default, g.add(aten.sub.Scalar, g.ids, 14)), (4, 14)),
    "relu": (lambda g: g.add(aten.relu.default, g.add(aten.sub.Scalar, g.ids, 4)), (0, 6)),
    "clamp": (of_ids("clamp.default", 2, 5), (2, 5)),
    "clamp below": (of_ids("clamp.default", 12), (12, 12)),
    "clamp_min": (of_ids("clamp_min.default", 4), (4, 10)),
    "clamp_max": (of_ids("clamp_max.default", 4), (0, 4)),
    "larger": (beside("maximum.default", 3), (3, 13)),
    "smaller": (beside("minimum.default", -3), (-3, 7)),
    "rest": (of_ids("remainder.Scalar", 4), (0, 3)),
    "no rest": (of_ids("remainder.Scalar", 11), (0, 10)),
    "rest of less": (of_ids("remainder.Scalar", -4), None),
    "rest at the end": (of_ids("remainder.Scalar", 10), (0, 9)),
    "bits": (of_ids("bitwise_and.Scalar", 6), (0, 6)),
    "bits of more": (of_ids("bitwise_and.Scalar", 60), (0, 10)),
    "bits of any": (lambda g: g.add(aten.bitwise_and.Scalar, g.add(aten.sub.Scalar, g.ids, 1), -1), None),
    "truths": (of_ids("eq.Scalar", 4), (0, 1)),
    "places": (of_ids("argmax.default", 1), (0, 2**62)),
    "reshaped": (lambda g: g.add(aten.unsqueeze.default, g.add(aten.select.int, g.ids, 1, 0), 1), (0, 10)),
    "joined": (lambda g: g.add(aten.cat.default, [g.ids, g.add(aten.add.Scalar, g.ids, 20)], 1), (0, 30)),
    "padded": (of_ids("constant_pad_nd.default", [1, 0], -1), (-1, 10)),
    "padded with nothing": (
        lambda g: g.add(aten.constant_pad_nd.default, g.add(aten.add.Scalar, g.ids, 5), [1, 0]),
        (0, 15),
    ),
    "chosen": (
        lambda g: g.add(aten.where.self, g.add(aten.gt.Scalar, g.ids, 2), g.ids, g.add(aten.add.Scalar, g.ids, 7)),
        (0, 17),
    ),
    "filled": (lambda g: g.add(aten.masked_fill.Scalar, g.ids, g.add(aten.gt.Scalar, g.ids, 2), 30), (0, 30)),
    "zeros": (of_ids("zeros_like.default"), (0, 0)),
    "ones": (of_ids("ones_like.default"), (1, 1)),
    "full": (of_ids("full_like.default", 9), (9, 9)),
    "converted": (of_ids("_to_copy.default", dtype=torch.int32), (0, 10)),
    "converted to less": (
        lambda g: g.add(aten._to_copy.default, g.add(aten.add.Scalar, g.ids, 200), dtype=torch.uint8),
        (200, 210),
    ),
    "wrapped": (
        lambda g: g.add(aten._to_copy.default, g.add(aten.add.Scalar, g.ids, 250), dtype=torch.uint8),
        (0, 255),
    ),
    "from floats": (lambda g: g.add(aten._to_copy.default, g.x, dtype=torch.int64), None),
    "largest": (lambda g: g.add(lambda pair, k: pair[k], g.add(aten.max.dim, g.ids, 1), 0), None),
    "divided": (of_ids("floor_divide.default", 2), None),
    "counted": (lambda g: g.add(aten.arange.default, 5), (0, 5)),
    "counted on": (lambda g: g.add(aten.arange.start, -3, 5), (-3, 5)),
}


@pytest.mark.parametrize("name", RANGES)
def test_ranges_of_whole_numbers(name: str) -> None:
    graph = FakeGraph()
    build, wanted = RANGES[name]
    assert ValueRanges({graph.ids: (0, 10)}, {}).of(build(graph)) == (wanted or ANY)


def test_ranges_of_results_of_constants_and_of_dtypes() -> None:
    g = FakeGraph()
    ranges = ValueRanges({g.ids: (0, 10)}, {g.limits: torch.tensor([3, -7])})
    pair = g.add(aten.max.dim, g.ids, 1)
    assert [ranges.of(g.add(operator.getitem, pair, k)) for k in (0, 1)] == [(0, 10), (0, 2**62)]
    for target, *more in (
        *(
            (aten.min.dim, 1),
            (aten.topk.default, 1),
            (aten.sort.default,),
            (aten.median.dim, 1),
            (aten.mode.default, 1),
        ),
        *((aten.kthvalue.default, 1), (aten.cummax.default, 1), (aten.cummin.default, 1)),
    ):
        pair = g.add(target, g.ids, *more)
        found = [ranges.of(g.add(operator.getitem, pair, k)) for k in (0, 1)]
        assert found == [(0, 10), (0, 2**62)], target
    parts = g.add(aten.split.Tensor, g.ids, 2)
    assert ranges.of(g.add(operator.getitem, parts, 1)) == (0, 10)
    assert (
        ranges.of(g.limits) == (-7, 3)
        and ranges.of(True) == (1, 1)
        and ranges.of(4) == (4, 4)
        and ranges.of(0.5) == ANY
    )
    assert ValueRanges({}, {g.limits: torch.tensor([0.5])}).of(g.limits) == ANY
    assert ValueRanges({}, {g.limits: torch.zeros(0, dtype=torch.int64)}).of(g.limits) == ANY
    assert ranges.of(g.size(g.x, 1)) == (0, 2**62) and ranges.of(g.x) == ANY
    truth, small = g.add(aten.gt.Scalar, g.x, 0), g.add(aten._to_copy.default, g.x, dtype=torch.int8)
    assert held_by(truth) == (0, 1) and held_by(small) == (-128, 127) and held_by(g.size(g.x, 1)) == ANY
    assert (
        is_integer(truth)
        and is_integer(g.ids)
        and not is_integer(g.x)
        and not is_integer(g.size(g.x, 1))
        and not is_integer(3)
    )
    assert operator_name(truth) == "gt" and operator_name(g.add(operator.add, 1, 2)) == "add"
