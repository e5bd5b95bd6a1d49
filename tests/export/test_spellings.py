"""What torch would trace a second time, or freeze at one size, is spelled otherwise: the same numbers at every size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncore.export.tracing.plain_spelling import clamp_by_floats, drop_notes, spell_plainly
from rnncore.export.tracing.pooling import PoolsAnySize
from rnncore.export.tracing.torch_onnx import FIXES_AXIS, to_program
from rnncore.runtime.errors import ExportError
from tests.tolerances import fixed

aten = torch.ops.aten
SIZES = ((2, 9, 4), (3, 12, 4), (5, 31, 4))


class Calls(nn.Module):
    def __init__(self, *functions: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> Any:
        return tuple(function(x) for function in self.functions)


def exported(*functions: Callable[[Tensor], Any]) -> Any:
    free = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    return torch.export.export(Calls(*functions), (torch.randn(3, 7, 4),), dynamic_shapes=free)


def flat(outputs: Any) -> list[Tensor]:
    return [tensor for part in outputs for tensor in (part if isinstance(part, tuple | list) else [part])]


def check(program: Any, *functions: Callable[[Tensor], Any], sizes: Any = SIZES) -> None:
    program.graph.lint()
    for shape in sizes:
        x = torch.randn(shape)
        got, wanted = flat(program.graph_module(x)), flat(function(x) for function in functions)
        assert len(got) == len(wanted)
        for k, (own, other) in enumerate(zip(got, wanted, strict=True)):
            assert own.shape == other.shape and own.dtype == other.dtype, (k, shape)
            torch.testing.assert_close(own, other, rtol=0, atol=fixed("float32 same steps"), msg=f"{k} at {shape}")


SPELLED: list[tuple[Callable[[Tensor], Any], Any]] = [
    (lambda x: x.double(), aten._to_copy.default),
    (lambda x: x.to(torch.int32), aten._to_copy.default),
    (lambda x: x.movedim(0, 2), aten.permute.default),
    (lambda x: x.movedim((0, 1), (-1, 0)), aten.permute.default),
    (lambda x: x.movedim(-1, -3), aten.permute.default),
    (lambda x: x.unflatten(2, (2, 2)), aten.reshape.default),
    (lambda x: x.unflatten(-1, (4, 1)), aten.reshape.default),
    (lambda x: x.flatten(), aten.reshape.default),
    (lambda x: x.flatten(1), aten.reshape.default),
    (lambda x: x.flatten(0, -2), aten.reshape.default),
    (lambda x: x[:1, :2].flatten(0, 1), aten.reshape.default),
    (lambda x: x.chunk(3, 2), aten.split.Tensor),
    (lambda x: x.chunk(2, dim=-1), aten.split.Tensor),
    (lambda x: x.narrow(1, 1, 3), aten.slice.Tensor),
    (lambda x: 3 - x, aten.add.Tensor),
    (lambda x: x.swapaxes(0, 2), aten.transpose.int),
    (lambda x: torch.swapdims(x, 1, -1), aten.transpose.int),
]
LEFT: list[tuple[Callable[[Tensor], Any], Any]] = [
    (lambda x: x.flatten(1, 1) + 0, aten.flatten.using_ints),
    (lambda x: x.chunk(2, 1), aten.chunk.default),
    (lambda x: torch.rsub(x, 3, alpha=2), aten.rsub.Scalar),
    (lambda x: 3 - x.long(), aten.rsub.Scalar),
    (lambda x: x.narrow(1, -3, 2), aten.narrow.default),
]


def test_operators_are_spelled_plainly_and_back() -> None:
    functions = [function for function, _ in (*SPELLED, *LEFT)]
    program = exported(*functions)
    targets = [node.target for node in program.graph.nodes]
    undo = spell_plainly(program)
    now = [node.target for node in program.graph.nodes if node.op == "call_function"]
    gone = {aten.movedim.int, aten.movedim.intlist, aten.unflatten.int, aten.swapaxes.default, aten.swapdims.default}
    assert not gone & set(now) and {target for _, target in SPELLED} <= set(now)
    assert (
        now.count(aten.flatten.using_ints) <= 1
        and now.count(aten.narrow.default) == targets.count(aten.narrow.default) - 1
    )
    assert now.count(aten.chunk.default) == 1 and now.count(aten.rsub.Scalar) == targets.count(aten.rsub.Scalar) - 1
    for node in program.graph.nodes:
        if node.target in (aten.sym_size.int, aten.neg.default):
            assert "val" in node.meta
    check(program, *functions)
    undo()
    assert [node.target for node in program.graph.nodes] == targets
    check(program, *functions)


def test_what_is_changed_in_place_is_left_as_it_is() -> None:
    def writes(x: Tensor) -> Tensor:
        y = x.clone()
        y.add_(1)
        return y.movedim(0, 2)

    program = exported(writes)
    if aten.add_.Tensor not in [node.target for node in program.graph.nodes]:
        pytest.skip("this torch writes no operation in place")
    targets = [node.target for node in program.graph.nodes]
    spell_plainly(program)()
    assert [node.target for node in program.graph.nodes] == targets


def test_bounds_of_floats_are_floats_and_notes_are_dropped() -> None:
    functions = (
        lambda x: x.clamp(0, 0.5),
        lambda x: torch.clamp(x, min=-1, max=1),
        lambda x: x.long().clamp(0, 2),
        lambda x: x.to(torch.float64),
    )
    program = exported(*functions)
    clamp_by_floats(program)
    clamps = [node for node in program.graph.nodes if node.target is aten.clamp.default]
    kinds = [[type(bound) for bound in (*node.args[1:], *node.kwargs.values())] for node in clamps]
    assert kinds == [[float, float], [float, float], [int, int]]
    drop_notes(program)
    assert aten._assert_tensor_metadata.default not in [node.target for node in program.graph.nodes]
    check(program, *functions)


# ------------------------------------------------------------------------------------------------------- at every size
def traced(*functions: Callable[[Tensor], Any]) -> Any:
    free = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    return to_program(Calls(*functions), (torch.randn(3, 7, 4),), free, what="Calls")


POOLS: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: F.max_pool1d(x.mT, 3, 2, 1),
    lambda x: F.max_pool1d(x.mT, kernel_size=2),
    lambda x: torch.max_pool1d(x.mT, [2], [3], 0, 2),
    lambda x: F.max_pool1d(x.mT, 4, 2, ceil_mode=True),
    lambda x: F.max_pool1d(x.mT, x.shape[1]),
    lambda x: F.max_pool1d(x.mT, kernel_size=(x.shape[1],), return_indices=False),
)


def test_pools_over_one_axis_hold_at_every_size() -> None:
    check(traced(*POOLS), *POOLS)
    with PoolsAnySize():
        x = torch.randn(2, 4, 9)
        values, places = F.max_pool1d(x, 3, return_indices=True)
        assert torch.equal(values, x.unflatten(2, (3, 3)).amax(-1)) and places.dtype == torch.int64
        assert torch.equal(F.unfold(x[:, None], (2, 3)), F.unfold(x[:, None], (2, 3)))


WINDOWS: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: F.unfold(x[:, None], (x.shape[1], 2)),
    lambda x: F.unfold(x[:, None].repeat(1, 3, 1, 2), (x.shape[1], 3), padding=(0, 1), stride=(1, 2)),
    lambda x: F.unfold(x[:, None].repeat(1, 1, 1, 3), (x.shape[1], 2), dilation=(1, 3)),
    lambda x: F.unfold(x.mT[:, None], kernel_size=(2, x.shape[1]), stride=(3, 1), padding=(2, 0)),
)


def test_windows_as_wide_as_an_axis_hold_at_every_size() -> None:
    check(traced(*WINDOWS), *WINDOWS)


ROUNDED: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: F.pad(x.mT, (0, math.ceil(x.shape[1] / 4) * 4 - x.shape[1])),
    lambda x: x[:, : math.floor(x.shape[1] / 3)],
    lambda x: x[:, : int(x.shape[1] / 2)],
    lambda x: x[:, : math.trunc(x.shape[1] / 2 + 1)],
    lambda x: x[:, : math.ceil((x.shape[1] - 5) / 2) + 2],
    lambda x: x[:, : max(1, math.ceil((x.shape[1] - 8) / 4) + 1)],
    lambda x: torch.zeros(math.floor((x.shape[1] - 8) / 4) + 5),
    lambda x: torch.zeros(len(x), math.ceil(x.shape[1] / 1)),
)


def test_quotients_of_sizes_are_rounded_at_every_size() -> None:
    check(traced(*ROUNDED), *ROUNDED)


def test_what_fixes_a_size_is_named_by_its_line() -> None:
    def logs(x: Tensor) -> Tensor:
        for _ in range(int(math.log2(x.shape[1]))):
            x = x + 1
        return x

    with pytest.raises(ExportError) as caught:
        traced(logs)
    says = str(caught.value)
    assert says.startswith("torch.export cannot trace Calls") and FIXES_AXIS in says

    def fails(x: Tensor) -> Tensor:
        raise ValueError("not today")

    with pytest.raises(
        ExportError, match=r"torch.export cannot trace Calls at test_spellings.py:\d+, in fails: not today"
    ):
        traced(fails)
