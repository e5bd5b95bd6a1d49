"""Numbers in a program are read, and verification goes to both sides of each."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import onnx_ir as ir
import onnxruntime
import pytest
import sympy
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._sympy.functions import CeilToInt, FloorDiv, IntTrueDiv, Mod, PythonMod

from rnncore.export.tracing.free_parts import count_ends_forwards
from rnncore.export.tracing.size_expressions import computed
from rnncore.export.tracing.size_limits import Number, SizeLimits, find_size_limits
from rnncore.export.tracing.torch_onnx import to_onnx, to_program
from rnncore.export.tracing.whole_numbers import sizes_stay_sizes
from rnncore.export.verification.sizes import MOST_ENTRIES, MOST_SIZES, MOST_STEPS, Sizes, broken_at, chunkings
from tests.proof.modules import FEATURES, Base, Before, Branch, Dilated, Lag, Sliced, Table, WarmUp, Window

TRACED = (3, 31)


def limits_of(module: nn.Module, steps: int = TRACED[1]) -> SizeLimits:
    free = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    x = torch.randn(TRACED[0], steps, FEATURES)
    program = torch.export.export(module, (x,), dynamic_shapes=free, strict=False)
    shape = [node for node in program.graph.nodes if node.op == "placeholder"][-1].meta["val"].shape
    symbols = {
        size.node.expr: axis for size, axis in zip(shape, ("batch", "time"), strict=False) if hasattr(size, "node")
    }
    return find_size_limits(program, symbols, "time")


@pytest.mark.parametrize(
    "make",
    [Dilated, Lag, WarmUp, lambda n: WarmUp(n, stored=True), Window],
    ids=["dilated", "lag", "warm-up", "warm-up in a buffer", "window"],
)
@pytest.mark.parametrize("reach", [16, 24, 300])
def test_what_looks_back_is_streamed_far_enough(make: Callable[[int], Base], reach: int) -> None:
    limits = limits_of(Before(make(reach)))
    assert limits.reach >= reach - 1
    found = [n for n in limits.numbers if abs(n.value - reach) <= 1 and n.axis == "time"]
    assert found and all(n.where.startswith("modules.py:") for n in found)
    sizes = Sizes.of(limits, example_steps=5)
    assert sizes.streams[0] > reach and not sizes.too_far
    first, even = chunkings(sizes.streams[0])
    assert sum(first) == sum(even) == sizes.streams[0]
    assert max(first) * 2 > reach and min(first) <= 3 and max(even) < reach


def test_a_stack_reaches_as_far_as_all_of_it() -> None:
    layers = [Before(Dilated(2**i)) for i in range(7)]
    assert limits_of(nn.Sequential(*layers)).reach >= 127


@pytest.mark.parametrize("steps", [31, 60])
def test_guards_are_read_with_the_line_that_asks(steps: int) -> None:
    limits = limits_of(Before(Branch(40)), steps)
    (guard,) = limits.guards
    assert guard.where.startswith("modules.py:") and guard.own and guard.axes == ("time",)
    assert [guard.holds({"time": n}) for n in (40, 41)] == ([True, False] if steps < 40 else [False, True])
    assert {(1, 40), (1, 41)} <= set(Sizes.of(limits, 5).whole)
    assert broken_at(limits.guards, {"batch": 1, "time": 100 if steps < 40 else 1}) == [guard]


def test_streams_go_as_far_as_a_table_and_beyond_where_a_way_turns() -> None:
    assert Sizes.of(limits_of(Before(Table(100))), 5).streams == (117, 100, 13)


def test_guards_on_the_batch() -> None:
    assert {(4, 7), (5, 7)} <= set(Sizes.of(limits_of(Before(Branch(4, axis=0))), 5).whole)


class Entries(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] * x.shape[1] > 500 else x


def test_guards_on_both_axes_turn_at_several_batches() -> None:
    whole = Sizes.of(limits_of(Entries()), 5).whole
    assert {batch * time > 500 for batch, time in whole} == {True, False}
    assert len({batch for batch, time in whole if batch * time > 500}) >= 3


@pytest.mark.parametrize("last", [False, True])
def test_slices_and_tables_are_guards_of_their_line(last: bool) -> None:
    class Part(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, Sliced(100, last).part].sum(1)

    for module in (Part(), Before(Table(100))):
        limits = limits_of(module)
        assert limits.guards and all(".py:" in guard.where for guard in limits.guards)
        assert any(time > 100 for _, time in Sizes.of(limits, 5).whole)


def test_what_is_beyond_reach_is_said() -> None:
    sizes = Sizes.of(limits_of(Before(Branch(100_000))), 5)
    assert [guard.text for guard in sizes.unchecked] == ["time <= 100000"]
    sizes = Sizes.of(limits_of(Before(Lag(20_000))), 5)
    assert sizes.too_far.startswith("it looks 20000 steps back (modules.py:")
    assert sizes.streams[0] == MOST_STEPS


class Widths(nn.Module):
    """Numbers that have nothing to do with time."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([x, x, x], 2).reshape(x.shape[0], x.shape[1], 3, FEATURES).flatten(2)
        a, b = y.split([4, 5], 2)
        return torch.cat([a[:, :, :3], b.clamp(-1000, 1000)], 2)


def test_numbers_of_other_axes_are_none() -> None:
    sizes = Sizes.of(limits_of(Widths()), 5)
    assert sizes == Sizes((), (13,), (), "")


def test_the_stream_is_as_long_as_the_example() -> None:
    assert Sizes.of(SizeLimits(), 200).streams == (200, 13)
    assert Sizes.of(SizeLimits(), 2).streams == (13,) and chunkings(13) == []


TIME, BATCH = sympy.symbols("time batch", integer=True, positive=True)
CONDITIONS = (
    CeilToInt(IntTrueDiv(TIME - 1, 3) + 1.0) > sympy.Max(6, BATCH - TIME),
    sympy.Ne(Mod(BATCH, BATCH * FloorDiv(TIME + 3, 4)), 0) & (TIME > 6),
    sympy.Eq(PythonMod(TIME - 9, 4), 0) | sympy.Not(TIME < 5),
    sympy.Min(7, TIME) > 3 * TIME**2 - BATCH * TIME,
)


@given(st.sampled_from(CONDITIONS), st.integers(1, 500), st.integers(1, 9))
def test_conditions_are_computed_as_sympy_does(condition: sympy.Basic, time: int, batch: int) -> None:
    wanted = condition.xreplace({TIME: sympy.Integer(time), BATCH: sympy.Integer(batch)})
    assert bool(computed(condition)({TIME: time, BATCH: batch})) == bool(wanted)


class CountsAxes(nn.Module):
    """Normalises over axes that it counts out, as libraries do to serve tensors of any rank."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(torch.arange(1, x.dim()).tolist(), keepdim=True)


def test_axes_that_are_counted_out_are_known() -> None:
    program = to_program(CountsAxes(), (x := torch.randn(2, 5, FEATURES),), None, what="it")
    assert torch.equal(program.module()(x), CountsAxes()(x))


class PadsToFrames(nn.Module):
    """As codecs do: in whole windows, whose number is a rounded quotient; the first pads nothing, whatever the length.

    At last, as enhancers do, to windows of 12 steps, 4 apart, of which there is one at least: the quotient may be negative.
    """

    def whole(self, length: int) -> int:
        for _ in range(2):
            length = max(1, math.ceil((length - 12) / 4) + 1)
        return int((length - 1) * 16 + 57)

    def forward(self, x: Tensor) -> Tensor:
        x = x[: len(x)] if len(x.shape) == 3 and isinstance(len(x), int | torch.SymInt) else x[:0]
        for stride in (1, 2, 3):
            frames = math.ceil((math.ceil(x.shape[1]) - stride) / stride + 1)
            x = F.pad(x, (0, 0, 0, frames * stride - x.shape[1]))
        x = x[:, : math.floor(x.shape[1] / 2)]
        return F.pad(x, (0, 0, 0, int(self.whole(x.shape[1]) / 2)))


def test_rounded_quotients_of_sizes_are_whole_numbers() -> None:
    free = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    program = to_program(PadsToFrames(), (torch.randn(2, 31, FEATURES),), free, what="it")
    assert not [node for node in program.graph.nodes if node.target in (math.ceil, math.floor, operator.truediv)]
    file = to_onnx(PadsToFrames(), (torch.randn(2, 31, FEATURES),), free, what="it")
    session = onnxruntime.InferenceSession(ir.to_proto(file).SerializeToString(), providers=["CPUExecutionProvider"])
    for steps in range(9, 40):
        x = torch.randn(1 + steps % 3, steps, FEATURES)
        (found,) = session.run(None, {file.graph.inputs[0].name: x.numpy()})
        assert found.shape == program.module()(x).shape == PadsToFrames()(x).shape
    for kind in (torch.SymFloat, torch.SymInt):
        assert kind.__ceil__.__module__.startswith("torch")  # type: ignore[attr-defined]
    assert not {"int", "len"} & globals().keys()


class Late(ModuleType):
    """A file of a package that is loaded when something of it is asked for, and cannot be."""

    def __getattr__(self, name: str) -> Any:
        raise ImportError(name)


def test_files_that_are_loaded_late_stay_unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tests.late", Late("tests.late"))
    with sizes_stay_sizes(PadsToFrames()):
        assert "int" in globals()
    assert "int" not in globals()


class EndsBefore(nn.Module):
    """Leaves out what is over a multiple of 4, if anything is."""

    def forward(self, x: Tensor) -> Tensor:
        over = x.shape[1] % 4
        return x[:, :-over] if over else x


def test_ends_are_counted_forwards() -> None:
    free = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    program = to_program(EndsBefore(), (torch.randn(3, 31, FEATURES),), free, what="it")
    before = program.module(check_guards=False)
    x = torch.randn(2, 32, FEATURES)
    assert before(x).shape[1] == 0  # -0 is the beginning
    count_ends_forwards(program)
    for steps in range(4, 40):
        x = torch.randn(2, steps, FEATURES)
        assert torch.equal(program.module(check_guards=False)(x), EndsBefore()(x))
    asked = [
        guard for guard in limits_of(EndsBefore()).guards if guard.differ and guard.where.startswith("test_sizes.py:")
    ]
    assert asked and asked[0].own and not asked[0].holds({"time": 32})


@given(st.lists(st.integers(3, 9000), max_size=12), st.integers(1, 9000))
def test_the_work_is_bounded(reaches: list[int], example: int) -> None:
    limits = SizeLimits((), tuple(Number("time", n, "") for n in reaches), sum(reaches))
    sizes = Sizes.of(limits, example)
    assert len(sizes.whole) <= MOST_SIZES and all(b * t <= MOST_ENTRIES for b, t in sizes.whole)
    assert max(sizes.streams) <= max(MOST_STEPS, example)
    for chunks in chunkings(sizes.streams[0]):
        assert sum(chunks) == sizes.streams[0] and min(chunks) > 0 and len(chunks) <= 17


@pytest.mark.parametrize(
    ("steps", "cuts"),
    [
        (13, []),
        (14, [(8, 1, 5), (1,) * 14]),
        (15, [(8, 1, 3, 2, 1), (1,) * 15]),
        (16, [(9, 1, 3, 2, 1), (1,) * 16]),
        (17, [(9, 1, 3, 2, 2), (2,) * 8 + (1,)]),
        (100, [(51, 1, 3, 2, 43), (7,) * 14 + (2,)]),
        (160, [(81, 1, 3, 2, 73), (10,) * 16]),
    ],
)
def test_a_long_stream_is_cut_into_a_long_chunk_and_short_ones_and_evenly(
    steps: int, cuts: list[tuple[int, ...]]
) -> None:
    assert chunkings(steps) == cuts


def test_a_module_without_a_free_time_axis_is_asked_at_other_batches_only() -> None:
    limits = limits_of(Before(Branch(4, axis=0)))
    limits = SizeLimits(limits.guards, (Number("time", 40, ""),), 40)
    assert set(Sizes.of(limits, 5, ["batch"]).whole) == {(4, 7), (5, 7)}
    assert not Sizes.of(limits, 5, ["time"]).whole
    assert {(4, 7), (5, 7), (1, 39), (1, 56)} < set(Sizes.of(limits, 5).whole)
