"""Parts of an axis of no fixed size are slices that hold at every size, and say what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnncore.export.tracing.free_parts import slice_free_parts

aten = torch.ops.aten
SIZES = (4, 6, 10, 50)


class Parts(nn.Module):
    def __init__(self, cut: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, x: Tensor) -> Any:
        return self.cut(x)


KINDS: dict[str, Callable[[Tensor], Any]] = {
    "two halves": lambda x: x.chunk(2, 1),
    "the second half": lambda x: torch.tanh(x.chunk(2, dim=1)[1]),
    "halves from behind": lambda x: x.chunk(2, -2),
    "halves by size": lambda x: x.split(x.shape[1] // 2, 1)[:2],
}


def traced(kind: str) -> Any:
    even = 2 * torch.export.Dim("half", min=2, max=1000)
    free = ({0: torch.export.Dim.DYNAMIC, 1: even},)
    return torch.export.export(Parts(KINDS[kind]), (torch.randn(2, 8, 3),), dynamic_shapes=free)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_slices_that_hold_at_every_size(kind: str) -> None:
    program = traced(kind)
    shape = next(node for node in program.graph.nodes if node.op == "output").all_input_nodes[0].meta["val"].shape
    slice_free_parts(program)
    targets = [node.target for node in program.graph.nodes]
    assert aten.slice.Tensor in targets and not {aten.chunk.default, aten.split.Tensor} & set(targets)
    program.graph.lint()
    for node in program.graph.nodes:
        if node.target is aten.slice.Tensor:
            assert [*map(str, node.meta["val"].shape)] == [*map(str, shape)]
    module = program.graph_module
    for size in SIZES:
        x = torch.randn(3, size, 3)
        found = module(x)
        wanted = KINDS[kind](x)
        for own, other in zip(found, wanted if isinstance(wanted, tuple | list) else [wanted], strict=True):
            torch.testing.assert_close(own, other, rtol=0, atol=0)


def test_parts_of_fixed_axes_and_lists_of_them_stay() -> None:
    free = torch.export.Dim.DYNAMIC
    for cut in (lambda x: x.chunk(3, 2), lambda x: x.split(1, -1)):
        program = torch.export.export(Parts(cut), (torch.randn(2, 8, 3),), dynamic_shapes=({0: free, 1: free},))
        targets = [node.target for node in program.graph.nodes]
        slice_free_parts(program)
        assert [node.target for node in program.graph.nodes] == targets
