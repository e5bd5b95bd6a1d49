"""Which output a state of one step becomes, where several look like it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.one_step import states_from_zeros
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE


class Actor(nn.Module):
    """A policy whose heads are as wide as its state; ``order`` of (value, features, state) is that of its outputs."""

    def __init__(self, order: tuple[int, ...], *, torch_cell: bool = True) -> None:
        super().__init__()
        self.cell, self.into = nn.GRUCell(4, 6), nn.Linear(10, 6)
        self.head, self.value = nn.Linear(6, 6), nn.Linear(6, 1)
        self._order, self._torch_cell = order, torch_cell

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        h = self.cell(x, h) if self._torch_cell else torch.tanh(self.into(torch.cat((x, h), 1)))
        found = self.value(h), torch.relu(self.head(h)), h
        return tuple(found[place] for place in self._order)


def pairs(module: nn.Module) -> dict[str, str]:
    given = (torch.randn(2, 4), torch.zeros(2, 6))
    return states_from_zeros(module, find_axes(module, Example.of(module, given, None, "auto"), None))


@pytest.mark.parametrize(("order", "output"), [((0, 1, 2), 2), ((2, 1), 0), ((0, 2), 1), ((1, 2, 2), 2)])
def test_the_state_is_what_the_recurrent_layer_gave(order: tuple[int, ...], output: int) -> None:
    assert pairs(Actor(order)) == {"h": f"output_{output}"}


def test_nothing_is_guessed_where_nothing_tells() -> None:
    assert pairs(Actor((0, 1, 2), torch_cell=False)) == {}
    assert pairs(Actor((0, 2), torch_cell=False)) == {"h": "output_1"}


class Cell(nn.Module):
    """``return h, [h]``, as cells do that are called like Keras's: the state within a list, and once more beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(10, 6)

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h = torch.tanh(self.into(torch.cat((x, state[0]), 1)))
        return h, [h]


def test_a_state_that_is_the_output_as_well_is_one_state(tmp_path: Path) -> None:
    cell = Cell().eval()
    given = (torch.randn(2, 4), [torch.zeros(2, 6)])
    found = states_from_zeros(cell, find_axes(cell, Example.of(cell, given, None, "auto"), None))
    assert found == {"state_0": "output_1_0"}
    report = export(cell, tmp_path / "cell.onnx", given)
    assert report.causal
    x, h, wanted = torch.randn(7, 4), torch.zeros(1, 6), []
    with torch.no_grad():
        for step in x:
            h, _ = cell(step[None], [h])
            wanted.append(h)
    with load(report.path).stream() as stream:
        got = np.concatenate([stream.push(part.numpy()) for part in x.split([3, 4])])
    np.testing.assert_allclose(got, torch.cat(wanted).numpy(), **TOLERANCE)
