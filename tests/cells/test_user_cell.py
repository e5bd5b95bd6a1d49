"""A cell defined outside rnncore, in ten lines, does all that the built-in ones do."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import rnncore
from tests.cells.variants import example
from tests.parity import assert_same, gradients, named
from tests.strategies import randomize


class LeakyCell(rnncore.Cell):
    """Two states of different sizes, neither of them the output's."""

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__(input_size, size, {"slow": size + 2, "count": 1}, learn_initial_state=True)
        self.read, self.mix, self.write = (
            nn.Linear(input_size, size + 2),
            nn.Linear(size + 2, size + 2),
            nn.Linear(size + 2, size),
        )

    def project(self, x: Tensor) -> Tensor:
        return torch.tanh(self.read(x))

    def step(self, z: Tensor, slow: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slow = 0.9 * slow + z * torch.sigmoid(self.mix(slow))
        return self.write(slow), slow, count + 1


def by_hand(cell: LeakyCell, x: Tensor, lengths: Tensor, reverse: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The same as plain as can be: row by row, step by step."""
    y = x.new_zeros(*x.shape[:2], cell.output_size)
    slows, counts = [], []
    for row, length in enumerate(lengths.tolist()):
        slow, count = cell.initial_slow, cell.initial_count
        for t in reversed(range(length)) if reverse else range(length):
            slow = 0.9 * slow + torch.tanh(cell.read(x[row, t])) * torch.sigmoid(cell.mix(slow))
            count = count + 1
            y[row, t] = cell.write(slow)
        slows.append(slow)
        counts.append(count)
    return y, (torch.stack(slows), torch.stack(counts))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_user_cell_equals_its_loop_by_hand(reverse: bool) -> None:
    x, lengths = example()
    layer = randomize(rnncore.Recurrent(LeakyCell(5, 3), reverse=reverse).double(), 6)
    hand: Callable[..., object] = lambda x, state, lengths: by_hand(layer.cell, x, lengths, reverse)  # noqa: E731
    got, want = gradients(layer, x, None, lengths), gradients(layer, x, None, lengths, run=hand)
    assert_same(got, want, x.dtype, "gradient", depth=1, x=x)


def test_user_cell_streams_stacks_and_runs_both_ways() -> None:
    x, lengths = example()
    cell = randomize(LeakyCell(5, 3).double(), 7)
    both = rnncore.Bidirectional(cell, copy.deepcopy(cell))
    top = rnncore.Recurrent(rnncore.GRUCell(6, 2)).double()
    y, state = rnncore.Stacked([both, top, nn.Linear(2, 4).double()])(x, None, lengths)
    assert y.shape == (7, 13, 4)
    assert [s.shape[1] for s in (*state[0][0], *state[0][1], *state[1])] == [5, 1, 5, 1, 2]

    layer = rnncore.Recurrent(cell)
    whole, end = layer(x)
    first, carried = layer(x[:, :4])
    second, carried = layer(x[:, 4:], carried)
    assert_same(named(torch.cat([first, second], 1), carried), named(whole, end), x.dtype, "chunked", depth=1, x=x)


def test_cell_without_step_says_what_to_define() -> None:
    class Unfinished(rnncore.Cell):
        pass

    with pytest.raises(NotImplementedError, match=r"Unfinished must define step\(self, z, h, c\)"):
        rnncore.Recurrent(Unfinished(5, 3, {"h": 3, "c": 3}))(torch.zeros(2, 3, 5))
