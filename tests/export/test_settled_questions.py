"""Questions about values that change nothing are settled by trying, on the pass that rolls loops; others are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.conversion import convert_plain_layers
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.copying import copied
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.operators import find_operators
from rnncore.export.tracing.rolling.program import RolledProgram, roll
from rnncore.runtime.errors import ExportError
from tests.tolerances import fixed

WIDTH = 3


class Resets(nn.Module):
    """A policy whose states begin anew where ``starts`` says so; where it never does, the whole sequence is one call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(WIDTH, 4, batch_first=True)

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        if torch.all(starts == 0):
            return self.layer(x)[0]
        states, found = (x.new_zeros(1, x.shape[0], 4), x.new_zeros(1, x.shape[0], 4)), []
        for t in range(x.shape[1]):
            kept = (1.0 - starts[:, t]).view(1, -1, 1)
            y, states = self.layer(x[:, t : t + 1], (kept * states[0], kept * states[1]))
            found.append(y)
        return torch.cat(found, 1)


class Checks(nn.Module):
    """It refuses what is no number, and has a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, 4)

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        if not torch.isfinite(x).all():
            raise ValueError("no numbers")
        h, found = x.new_zeros(x.shape[0], 4), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h) * (1 - starts[:, t : t + 1])
            found.append(h)
        return torch.stack(found, 1)


class Logs(Checks):
    """It reports a number beside its answer, and writes it into a text."""

    def forward(self, x: Tensor, starts: Tensor) -> tuple[Tensor, dict[str, Any]]:  # type: ignore[override]
        y = super().forward(x, starts)
        norm = y.norm(dim=-1).mean().item()
        return y, {"norm": norm, "text": f"{norm:.3f}"}


class Scales(Checks):
    """It computes with such a number."""

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        y = super().forward(x, starts)
        return y / (1.0 + y.norm().item())


class Minds(Checks):
    """Its answers do depend on what it asks."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        return super().forward(x.clamp(-1, 1) if x.abs().max() > self.limit else x, starts)


def rolled(module: nn.Module, seed: int) -> RolledProgram | None:
    example: Any = (torch.randn(2, 6, WIDTH), torch.zeros(2, 6))
    call = find_axes(module, Example.of(module, example, None, "auto"), None, seed)
    plain = convert_plain_layers(copied(module))
    return roll(plain, call, find_operators(plain, call, seed), seed)


@settings(max_examples=3, phases=[Phase.explicit, Phase.generate])
@given(kind=st.sampled_from([Resets, Checks]), seed=st.integers(0, 2**16))
def test_a_question_that_changes_nothing_is_left_out(kind: type[nn.Module], seed: int) -> None:
    torch.manual_seed(seed)
    module = kind().eval()
    with torch.no_grad():
        found = rolled(module, seed)
        assert found is not None
        for batch, steps, share in ((1, 5, 0.0), (3, 8, 0.3), (2, 33, 1.0)):
            x, starts = torch.randn(batch, steps, WIDTH), (torch.rand(batch, steps) < share).float()
            (got,) = found(x, starts).values()
            torch.testing.assert_close(got, module(x, starts), rtol=0, atol=fixed("float32"))


@pytest.mark.parametrize("limit", [1.5, 1e6])
def test_a_question_that_matters_is_refused_by_its_line(limit: float) -> None:
    """Also one that no value of those that are tried answers otherwise: what happens then is not known."""
    refused(Minds(limit))


def test_a_number_that_is_only_handed_on_is_no_question() -> None:
    torch.manual_seed(0)
    module = Logs().eval()
    with torch.no_grad():
        found = rolled(module, 0)
        assert found is not None
        x, starts = torch.randn(3, 8, WIDTH), (torch.rand(3, 8) < 0.3).float()
        (got,) = found(x, starts).values()
        torch.testing.assert_close(got, module(x, starts)[0], rtol=0, atol=fixed("float32"))
    refused(Scales())


def refused(module: nn.Module) -> None:
    torch.manual_seed(0)
    with (
        torch.no_grad(),
        pytest.raises(ExportError, match=r"reads the value of a tensor[^\n]*\n.*test_settled_questions"),
    ):
        rolled(module.eval(), 0)
