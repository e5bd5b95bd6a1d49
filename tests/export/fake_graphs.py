"""Traced programs to which operations are added one by one, with sizes that are free."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.export import ExportedProgram
from torch.fx import Node

BATCH, TIME, WIDTH = 3, 23, 4


class _Passes(nn.Module):
    """x [batch, time, 4] and ids [batch, time]; a buffer that is beside."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("limits", torch.tensor([20.0, 0.125]))

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x + ids[..., None], ids + 1, self.limits + 1


@cache
def _traced() -> tuple[ExportedProgram, frozenset[Node]]:
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    example = (torch.randn(BATCH, TIME, WIDTH), torch.zeros(BATCH, TIME, dtype=torch.int64))
    program = torch.export.export(_Passes(), example, dynamic_shapes=(free, free))
    return program, frozenset(program.graph.nodes)


class FakeGraph:
    """One for all, of which what was added before is gone; ``anew``: nobody has said anything about its sizes.

    program: the trace.  x, ids, limits: its placeholders.  batch, time: as they stand in sizes.
    """

    def __init__(self, *, anew: bool = False) -> None:
        self.program, before = _traced.__wrapped__() if anew else _traced()
        self.graph = self.program.graph
        for node in [node for node in reversed(self.graph.nodes) if node not in before]:
            self.graph.erase_node(node)
        self.limits, self.x, self.ids = (node for node in self.graph.nodes if node.op == "placeholder")
        self.mode = self.x.meta["val"].fake_mode
        self.batch, self.time = (size.node.expr for size in self.x.meta["val"].shape[:2])
        self._last = next(node for node in self.graph.nodes if node.op == "output")

    def add(self, target: Any, *args: Any, path: str = "", **named: Any) -> Node:
        """One more operation; ``path`` is that of the module whose forward calls it."""
        with self.graph.inserting_before(self._last):
            node = self.graph.call_function(target, args, named)

        given: Any = torch.fx.map_arg((args, named), lambda value: value.meta["val"])
        with self.mode, enable_python_dispatcher():
            node.meta["val"] = target(*given[0], **given[1])
        node.meta["nn_module_stack"] = {"top": ("", "Top"), **({path: (path, "Part")} if path else {})}
        return node

    def size(self, source: Node, axis: int) -> Any:
        """The size of an axis."""
        return self.add(torch.ops.aten.sym_size.int, source, axis)
