"""Parts of forward under autocast and gradients switched on or off are seen by whatever reads a traced program."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rnncore.export.tracing.id_limits import limit_ids
from rnncore.export.tracing.randomness import refuse_random
from rnncore.export.tracing.torch_onnx import to_model, to_program
from rnncore.runtime.errors import ExportError


class Guarded(nn.Module):
    """Regions in regions, with results that leave by both, an argument that passes through, and one that is left unread."""

    def __init__(self, *, chance: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 4)
        self.chance = chance

    def forward(self, ids: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", enabled=False):
            with torch.enable_grad():
                looked_up = self.table(ids + 2)
                with torch.autocast("cuda", enabled=False):
                    doubled = looked_up * torch.tensor(2.0)
            y = x + doubled
            if self.chance:
                y = y + 0 * torch.rand(())
        with torch.enable_grad():
            return y, doubled, x


ARGUMENTS = (torch.randint(0, 18, (2, 5)), torch.randn(2, 5, 4))


def traced(module: nn.Module) -> torch.export.ExportedProgram:
    return to_program(module.eval(), ARGUMENTS, ({1: torch.export.Dim("time")},) * 2, what="Guarded")


def test_a_program_has_no_regions_and_answers_as_before() -> None:
    module = Guarded()
    program = traced(module)
    assert not [node for node in program.graph.nodes if "wrap_with" in str(node.target) or node.op == "get_attr"]
    with torch.no_grad():
        for got, wanted in zip(program.module()(*ARGUMENTS), module(*ARGUMENTS), strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    assert len(to_model(program, what="Guarded").graph.outputs) == 3


def test_what_they_look_up_has_its_limit() -> None:
    assert limit_ids(traced(Guarded()), 2) == {0: (-2, 17)}


def test_what_they_draw_is_refused_with_its_line() -> None:
    with pytest.raises(ExportError, match=r"aten.rand.default at .*test_regions.py:\d+, in forward"):
        refuse_random(traced(Guarded(chance=True)))
