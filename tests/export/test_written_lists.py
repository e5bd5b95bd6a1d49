"""Loops that write what is no result of their own step: states of an earlier loop, entries of a list, the step before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime.errors import ExportError
from tests.export.rolled import exported, streamed
from tests.tolerances import fixed

WIDTH, SIZE = 5, 6


class OfAnEarlierLoop(nn.Module):
    """States in a list, written into a tensor afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, SIZE)

    def states(self, x: Tensor) -> list[Tensor]:
        h, found = x.new_zeros(x.shape[0], SIZE), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            found.append(h)
        return found

    def forward(self, x: Tensor) -> Tensor:
        out = x.new_zeros(x.shape[0], x.shape[1], SIZE)
        for t, h in enumerate(self.states(x)):
            out[:, t] = h
        return out


class OfTheStepBefore(OfAnEarlierLoop):
    """The state is written before it moves."""

    def forward(self, x: Tensor) -> Tensor:
        h, out = x.new_zeros(x.shape[0], SIZE), x.new_zeros(x.shape[0], x.shape[1], SIZE)
        for t in range(x.shape[1]):
            out[:, t] = h
            h = self.cell(x[:, t], h)
        return out


class OfAList(OfAnEarlierLoop):
    """Steps of the input, time first, then the loop."""

    def forward(self, x: Tensor) -> Tensor:
        steps = x.new_zeros(x.shape[1], x.shape[0], WIDTH)
        for t, step in enumerate(x.unbind(1)):
            steps[t] = step
        return torch.stack(self.states(steps.transpose(0, 1)), 1)


@pytest.mark.parametrize("kind", [OfAnEarlierLoop, OfTheStepBefore, OfAList])
def test_what_is_written_comes_from_elsewhere(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = kind()

    def draw(batch: int, time: int) -> Tensor:
        return torch.randn(batch, time, WIDTH)

    model, report = exported(module, tmp_path, draw(2, 6), draw, [(1, 5), (3, 9)])
    assert report.causal
    x = draw(1, 7)
    with torch.no_grad():
        wanted = module(x)[0]
    torch.testing.assert_close(
        torch.from_numpy(streamed(model, x[0], [2, 1, 4])), wanted, rtol=0, atol=fixed("float32")
    )


class TwiceTheRows(nn.Module):
    """Both directions as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(WIDTH, SIZE, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.cat([x, x.flip(1)], 0))[0]


def test_several_rows_for_each_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'output' of shape .* has 2 rows for each of the batch.*y\.chunk\(2\)"):
        export(TwiceTheRows().eval(), tmp_path / "model.onnx", torch.randn(2, 6, WIDTH))
